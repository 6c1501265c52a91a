"""The page."""

from fastapi import APIRouter

from jobhistory.http.events import Feed
from jobhistory.http.service import Service


def page_router(service: Service, feed: Feed, comment_every: float) -> APIRouter:
    """The page."""
    del service, feed, comment_every
    return APIRouter()
