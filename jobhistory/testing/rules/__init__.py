"""The rules of JobRepository as tests, one concern a file; `jobhistory.testing.contract` joins them."""
