"""What redaction takes for a secret, in a text and under a key of JSON.

Masked are: the password in a URL or DSN; Authorization and Cookie headers; what stands under a secret's name, as in
`password=…`, `"token": "…"`, `--api-key …` or `<secret>…</secret>`; tokens known by their shape; and private keys. Left
alone are null, true, placeholders (`***`, `$TOKEN`), code (`password=self.password`) and sentences on a secret
("token: expired").

The cost is linear in the length of the text. It is searched by regular expressions that cannot run away: a repeat in
them is bounded, or it is possessive and nothing after it can fail. So an attempt that fails has read a bounded number
of characters, one that succeeds ends where the search goes on, and of a match that proves harmless a bounded number is
read again.

The rules are our own, since of the secrets in the corpus that tests/ hold the libraries find fewer: redact-secret
0.1.0b15 56 in 100; bc-detect-secrets 1.5.52 42 and detect-secrets 1.5.0 35, as they scan a file, where they take 11 and
5 in 100 harmless texts for one; trufflehog3 3.0.10 13; truffleHogRegexes 0.0.7 9.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import groupby

import attrs

MASK = "[redacted]"
_READ_AGAIN = 256  # characters

# The expressions are verbose and ASCII, and all but the shapes search lower case, in a fifth of the time that ignoring
# case takes. Names of secrets, by first letter, which is faster too:
_NAME = r"""
    (?P<name>
        a (?: pi[-_. ]?key | ccess[-_. ]?key | ccount[-_. ]?key (?: \.[\w.-]{1,80} )? | dmin[-_. ]key
            | pp(?:lication)?[-_. ]key | uth (?:[-_. ]?key)? )
      | c (?: lient[-_. ]?(?: key | state ) | ode | onsumer[-_. ]?key | redentials? )
      | e ncryption[-_. ]?key
      | hmac | jsessionid | key
      | m aster[-_. ]?key
      | p (?: ass (?: (?: word | wd | phrase | code | wort ) s? )? | hpsessid | riv(?:ate)?[-_. ]?key | wd )
      | s (?: ecret (?: [-_. ]?(?:access[-_. ]?)?key (?:[-_. ]?base)? )? s? | ession(?:id)? | id | hared[-_. ]?key
            | ig(?:nature)? | igning[-_. ]?key | torage[-_. ]?key | ubscription[-_. ]?key )
      | token )
    (?: [-_ ]? (?: v?[0-9]{1,3} | b(?:ase)?64 | confirm(?:ation)? | data | enc(?:rypted)? | hash | live | new | old
                 | prod(?:uction)? | provided | staging | string | test | text | value ) )?"""
# Names that are none: cursors, the words of a parser or a language model, parts of words, the working directory.
_OTHERS = "bos cls continuation cursor delta eos expected mask next pad page pagination resume sep special start sync"
_NO_NAME = rf"""
    (?: {" | ".join(rf"(?<={word}) | (?<={word}[-_ ])" for word in _OTHERS.split())} ) token
  | (?<=[a-z]) (?: auth | hmac | pass | session | sid | sig | signature )
  | (?<![?&;]) (?: code | key ) | (?<=old) pwd"""
# A name is followed by a value in quotes, plain or escaped, or by a bare one, which may hold punctuation.
_NAMED = rf"""
    {_NAME}
    (?P<head>
      \\{{0,4}}["'`]?\]?
      (?P<sep> [ \t]{{0,8}} (?: => | := | =(?!=) | :(?!//) ) [ \t]{{0,8}}
                 (?: (?: \s | \\{{1,4}}n ){{0,8}} string\([0-9]{{1,6}}\)[ ] )?
             | ,?\s{{1,20}} \\?["']?value\\?["']? [ ]?[:=][ ]? | %3[ad] | > | ,?[ ] (?= ["'`] | [^\s"'`]{{16}} ) )
      (?: (?P<call> \w{{0,24}}\( | \[ )? [bru]{{0,2}}
          (?P<quote> (?P<two>") | (?P<one>') | (?P<escaped>\\{{1,4}}["']) )(?![\s,)\]]) )?
    )
    (?P<secret>
      (?(two)       (?: [^"\\\r\n] | \\[^\r\n] )*+
      | (?(one)     (?: [^'\\\r\n] | \\[^\r\n] )*+
      | (?(escaped) (?: [^\\\r\n] | (?!\\{{1,4}}["'])\\ )*+
      | (?!\()
        (?: [^\s"'`,;&|)\]}}>\\<]
          | (?! [,;&|] (?: \s | \Z | [\w. -]{{1,40}}= ) | [)\]}}>] (?: \W | \Z ) | </ | \\[rnt"'\\] )
            [,;&|)\]}}>\\<] )*+ )))
    )"""
_HEADER = rf"""
    (?P<head>
      \\{{0,4}}["']? (?: [ ]?(?: => | : | =(?!=) )[ ]{{0,8}}+ | (?P<pair>,[ ]?) ) (?: (?!{re.escape(MASK)})\[ )?+
      (?: [bf]?\\{{0,4}}["'](?![\s,)\]]) )?+
      (?P<scheme> (?: apikey | basic | bearer | bot | geniekey | jwt | negotiate | ntlm | sharedkey | ssws | token )
          [ ]{{1,8}} )?+
    )
    (?P<secret> (?(scheme) [^\s"'\\]++ | (?(pair) (?!) | (?: [^\r\n"'\\=] | =(?:\\?"[^"\r\n]*+"?)? )++ )) )"""
_URL = r"://(?P<head>) (?P<secret> (?: [^\s\"'`:] | :(?!//) )*+ )"
_PEM = r"""
    -----begin[ ] [a-z0-9 ]{0,30} private[ ]key (?:[ ]block)? (?P<head>-----)
    (?= (?: \s | \\{1,4}[rn] ){0,8} (?: [a-z0-9+/=]{16} | proc-type | version | comment ) )
    (?P<secret> (?: [\w+/=\s\\:,.()] | -(?!----) )*+ )"""
# What gives a secret away without a name: a literal, what may follow it, and the secret.
_WORD = r"[^\s\"',\]]*+"
_NEXT = r"['\"],[ ]?['\"]"
_PHRASES = (
    ("bearer ", r"(?<![a-z]bearer[ ])", r"(?=[\w.~+/:-]{0,200}[0-9=]) [\w.~+/=:-]{12,}+"),
    ("basic ", r"(?<![a-z]basic[ ])", r"(?=[\w+/]{0,200}[0-9=]) [\w+/=]{12,}+"),
    ("--", rf"(?<![\w-]--) [\w-]{{0,30}}? (?:key|pass(?:phrase|wd|word)?|secret|token) (?:{_NEXT}|[ ]['\"]?)", _WORD),
    ("--", rf"(?<![\w-]--) (?:proxy-)? (?:auth|user) (?: {_NEXT} | [ =]['\"]? ) [^\s:\"']{{1,64}}:", _WORD),
    ("-u", rf"(?<![\w-]-u) (?: {_NEXT} | [ ]['\"]? ) [^\s:\"']{{1,64}}:", _WORD),
    ("sshpass -p", "[ ]?'?", r"[^\s']*+"),
    ("login -", r"(?:[^\n]{0,80}?[ ]-)?p[ ]", r"\S*+"),
    ("mysql", r"[^\n]{0,80}?[ ]-p", r"\S*+"),
    ("login ", r"\S{1,64}[ ] (?: password[ ] | \" )", r"[^\s\"]*+"),
    ("'pass ", "", r"[^\s']*+"),
    ("auth\\", r'\\{0,3}"[ ] (?: \\{1,4}"[^"\\\s]{1,64}\\{1,4}"[ ] )? \\{1,4}"', r'[^"\\\s]*+'),
    ('"auth" ', r'(?: "[^"\s]{1,64}"[ ] )? "', r'[^"\s]*+'),
    ("auth=(", r"['\"] [^'\"\r\n]{0,80} ['\"],[ ]? ['\"]", r"[^'\"\r\n]*+"),
    ("identified by '", "", r"[^'\r\n]*+"),
    ("integer value as '", "", r"[^'\r\n]*+"),
    (":oracle:thin:", r"[^\s/@]{1,64}/", r"[^\s@]*+"),
    ("hooks.slack.com/", r"\w{1,20}/", r"[\w/-]*+"),
    ("/api/webhooks/", "[0-9]{10,24}/", r"[\w-]*+"),
    ("webhook.office.com/", r"\w{1,20}/", r"[\w@/-]*+"),
)
# Tokens by their shape: the issuer's prefix and what follows it.
_SHAPES = r"""
    00D\w{12,15}![\w.]{40,}+ 1//0[\w-]{30,}+ [12]/[0-9]{10,20}/[0-9]{10,20}:[0-9a-f]{32}
    [MNO][A-Za-z0-9]{23,27}\.[\w-]{6}\.[\w-]{27,}+ A(?:BI|KI|SI)A[A-Z0-9]{16} A3-[A-Z0-9]{6}-[A-Z0-9-]{20,}+
    AGE-SECRET-KEY-1\w{50,}+ AIza[\w-]{35,}+ AKCp[A-Za-z0-9]{60,}+ AT[AC]TT3[\w=-]{40,}+ ATBB\w{28,}+ CFPAT-[\w-]{40,}+
    CLOJARS_\w{50,}+ cmVmd[A-Za-z0-9]{59,}+ dapi[0-9a-f]{32} dckr_pat_[\w-]{20,}+ do[opr]_v1_\w{40,}+
    dp\.[a-z]{2,4}\.[\w.]{30,}+ EAA[a-zA-Z0-9]{80,}+ EAAA[\w-]{56,}+ eyJ[\w-]{10,1000}\.[\w-]{10,}+(?:\.[\w-]*+)*+
    figd_[\w-]{30,}+ gh[oprsu]_\w{30,}+ github_pat_\w{50,}+ gl[a-z]{2,6}-[\w.-]{20,}+ glc_[\w=+/]{40,}+ glsa_\w{32,}+
    GOCSPX-[\w-]{20,}+ hf_[A-Za-z0-9]{30,}+ HRKU-[\w-]{30,}+ hv[sbr]\.[\w-]{20,}+ key-[0-9a-f]{32}
    lin_[a-z]{2,8}_\w{30,}+ LTAI[A-Za-z0-9]{16,}+ npm_\w{30,}+ NRAK-[A-Z0-9]{20,}+ ntn_\w{40,}+ ops_eyJ[\w+/=]{100,}+
    p8e-[A-Za-z0-9]{32} pat-[a-z]{2}[0-9]-[0-9a-f-]{30,}+ pat[A-Za-z0-9]{14}\.[0-9a-f]{60,}+ PMAK-[0-9a-f-]{50,}+
    pscale_[a-z]{2,5}_[\w-]{30,}+ pypi-[\w-]{50,}+ rk_(?:live|test)_\w{16,}+ sbp_[0-9a-f]{40} secret_[A-Za-z0-9]{40,}+
    SG\.[\w-]{16,32}\.[\w-]{16,}+ shp[a-z]{2}_[0-9a-f]{32} sk-(?=[\w-]{0,80}[0-9])[\w-]{32,}+ SK[0-9a-f]{32}
    sk_(?:live|test)_\w{16,}+ sl\.[A-Z][\w-]{60,}+ sntry[su]_[\w+/=]{40,}+ sq0[a-z]{3}-[\w-]{20,}+ whsec_[\w+/=]{24,}+
    xapp-[\w-]{20,}+ xkeysib-[\w-]{40,}+ xox[a-z]-[\w-]{10,}+ ya29\.[\w-]{20,}+
"""
# Shapes that have no prefix: what is in them all, then all of it.
_INNER_SHAPES = (
    (":AA", r"(?<![0-9])[0-9]{8,10}:AA[\w-]{33}"),
    ("8Q~", r"(?<![\w.~-])[\w.~-]{3}8Q~[\w.~-]{31,}+"),
    ("-us", r"\b[0-9a-f]{32}-us[0-9]{1,2}\b"),
    ("@tcp(", r"(?<=:)[^\s:@/]{1,64}(?=@tcp\()"),
)

# What stands in for a secret, or begins a sentence on one.
_PLACEHOLDER = r"""
    [!-/:-@[-`{-~x\u2022]++ | \$\{?[A-Z_][A-Z0-9_]*+\}? | \$[0-9]{1,2} | %(?:\(\w*+\))?s | :\w++ | <[^<>]{1,60}>
  | \{{1,2}[^{}"']{0,60}\}{1,2} | \[[\w ]{2,20}\] | (?i: your[-_ ][\w -]{1,40} | n/a | nil | no | none | null | off | on
  | pass(?:word)? | pw | secret | str | bool | bytes | int | string | text | true | false | undefined | yes )"""
_SENTENCE = r"""(?i:
    a | all | an | and | any | are | arguments? | as | at | be | but | by | can(?:not|'t)? | closed | denied | disabled
  | do(?:es)? | empty | enabled | ensure | enter | eof | err(?:or)? | expected | expired | failed | field | flag | for
  | found | from | given | got | ha[sd] | have | if | in | incorrect | instead | invalid | is | it | malformed | may
  | minimum | missing | must | need(?:s|ed)? | no | not | of | ok | only | options? | optional | or | please | prompt
  | raise | read | refused | reject(?:ed)? | required? | requires | return | revoked | should | than | that | the
  | there | this | throw | to | too | unauthori[sz]ed | unexpected | unknown | unset | use[ds]? | valid | value | was
  | were | will | with | wrong | you | your ) [.,:;!?)]{0,3} (?: \s | \Z )"""
_CODE = r"""
    [A-Za-z_]\w*+ (?:\??\.[A-Za-z_]\w*+)*+ (?: \((?![0-9])[\w.=]*+ | \[[\w:-]*+ )
  | [A-Za-z_]{1,30} (?: \.[A-Za-z_]{1,30} ){1,8}"""
_MADE = r"(?=[^0-9]*+[0-9]) .{6,}+ | .{16,}+"
_RANDOM = r"(?=[^a-zA-Z]*+[a-zA-Z]) (?=[^0-9]*+[0-9]) [\w+/=.~%!:-]{16,}+"
_CHOSEN = ("pass", "pwd", "secret", "cred")  # what people choose may be a plain word
_WEAK = ("auth", "code", "credentials", "hmac", "key", "passwords", "secrets", "session", "sid", "sig", "signature")
_SHORTEST_VALUE = 3

_Spans = list[tuple[int, int]]


@cache
def _pattern(source: str) -> re.Pattern[str]:
    return re.compile(source, re.VERBOSE | re.ASCII)


def _matches(source: str, value: str) -> bool:
    return _pattern(source).fullmatch(value) is not None


def lower(text: str) -> str:
    """Lower case, character for character (this one alone would become two)."""
    return text.replace("\u0130", "i").lower()


@attrs.frozen
class Rule:
    """What to look for, and which spans of a match to mask. A text without the needle need not be searched."""

    pattern: re.Pattern[str]
    spans: Callable[[re.Match[str], str], _Spans]
    needle: str = ""

    def __call__(self, text: str, seen: str) -> str:
        """Mask what is found in `seen`: the text, or its lower case."""
        if self.needle not in seen:
            return text
        kept: list[str] = []
        done = at = 0
        while match := self.pattern.search(seen, at):
            at = match.end()
            if spans := self.spans(match, text):
                for start, end in spans:
                    kept += (text[done:start], MASK)
                    done = at = end
            elif at - match.end("head") < _READ_AGAIN:
                at = match.end("head")
        return "".join((*kept, text[done:])) if kept else text


def _whole(match: re.Match[str], _text: str) -> _Spans:
    return [match.span()]


def _unless_said(match: re.Match[str], text: str) -> _Spans:
    start, end = match.span("secret")
    return [] if start == end or _says(text[start:end]) else [(start, end)]


def _says(value: str) -> bool:
    """Whether this is a placeholder or a sentence rather than a secret."""
    return _matches(_PLACEHOLDER, value) or _pattern(_SENTENCE).match(value) is not None


def _headed(match: re.Match[str], text: str) -> _Spans:
    return [] if match[0].startswith("cookie") and "=" not in match["secret"] else _unless_said(match, text)


def _phrased(match: re.Match[str], text: str) -> _Spans:
    value = text[slice(*match.span("secret"))]
    option = value[:1] in "-[" or value.isdigit() or (value.isupper() and value.isalpha())
    return [] if option else _unless_said(match, text)


def _userinfo(match: re.Match[str], text: str) -> _Spans:
    """Find a URL's password, which may hold /?#@ unescaped, and a user that is a token (RFC 3986, 3.2.1)."""
    start, end = match.span("secret")
    whole = text[start:end]
    authority = re.split("[/?#]", whole, maxsplit=1)[0]
    _, at, host = authority.rpartition("@")
    if "@" not in whole or (not at and _matches(r"[^:]*+ (?: :[0-9]{0,5} )? | \[.*+", authority)):
        return []
    complete = match.string.startswith("http", max(0, start - 8)) or _matches(r"[\w.-]+ (?:\.\w+|:[0-9]+)", host)
    user, _, password = (authority if at and complete else whole).rpartition("@")[0].partition(":")
    after = start + len(user)
    spans = [(start, after)] if _matches("(?=.*[0-9])[A-Za-z0-9_]{20,}", user) else []
    if password and not _matches(_PLACEHOLDER, password):
        spans.append((after + 1, after + 1 + len(password)))
    return spans


def _named(match: re.Match[str], text: str) -> _Spans:
    """Find what stands under a name, unless the name is no secret's here, or the value is none."""
    start, end = match.span("secret")
    value, name, separator = text[start:end], match["name"], match["sep"].strip()
    if len(value) < _SHORTEST_VALUE or _pattern(_NO_NAME).fullmatch(match.string, *match.span("name")) or _says(value):
        return []
    before = text[max(0, match.start() - 80) : match.start()]
    loose = separator == "," or (separator == "" and not (match["quote"] and name.startswith(("passw", "passp"))))
    if loose or name in _WEAK:
        harmless = name == "secret" or not _matches(_RANDOM, value)
    elif match["quote"]:
        harmless = text[match.start("call")].islower() if match["call"] else False
    elif separator == ">":
        harmless = "<" in value or not text.startswith("</", end) or not re.search("<(?!/)[^<>]*+$", before)
    else:
        harmless = _says(text[start : end + 1]) or _is_harmless(name, separator, before[-1:], value)
    return [] if harmless else [(start, end)]


def _is_harmless(name: str, separator: str, before: str, value: str) -> bool:
    """Whether this value without quotes is a count, a path, or code such as `password=self.password`."""
    code = value.lstrip("{([").rstrip(",.;:)]}")
    if f"_{lower(code)}".endswith((f"_{name}", f".{name}")) or _matches(_CODE, code):
        return True
    if name == "pass":
        return separator == ":" or value.isdigit()
    if name == "pwd":
        return value[0] in "/~"
    return (separator == ":" and before in (":", "/")) or not (name.startswith(_CHOSEN) or _matches(_MADE, value))


@cache
def rules() -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """Compile the rules for the text and for its lower case when the first text comes: importing them costs nothing."""
    by_letter = groupby(sorted(_SHAPES.split()), key=lambda shape: shape[0])
    shapes = "|".join(f"(?:{'|'.join(group)})" for _, group in by_letter)
    phrases = [rf"{re.escape(start)} {gap} (?P<head>) (?P<secret>{secret})" for start, gap, secret in _PHRASES]
    return (
        (
            Rule(_pattern(rf"\b (?= [\w.!/:-]{{9}} ) (?:{shapes})"), _whole),
            *(Rule(_pattern(shape), _whole, needle) for needle, shape in _INNER_SHAPES),
        ),
        (
            Rule(_pattern(_PEM), _unless_said),
            Rule(_pattern(_URL), _userinfo),
            *(Rule(_pattern(header + _HEADER), _headed) for header in ("authorization", "cookie")),
            Rule(_pattern(_NAMED), _named),
            *(Rule(_pattern(phrase), _phrased) for phrase in phrases),
        ),
    )


def is_secret_key(name: str, item: object) -> bool:
    """Whether a secret stands under this key of a JSON object."""
    lowered = lower(name)
    items = item if isinstance(item, list) else [item]
    if all(one is None or isinstance(one, bool) or (isinstance(one, str) and _says(one)) for one in items):
        return False
    if lowered.endswith(("authorization", "cookie")):
        return True
    match = _pattern(rf"{_NAME} \W{{0,3}} \Z").search(lowered)
    if match is None or _pattern(_NO_NAME).fullmatch(lowered, *match.span("name")):
        return False
    return match["name"] not in _WEAK or (isinstance(item, str) and _matches(_RANDOM, item))
