"""Chats as OpenAI's own Python client sends them."""

from typing import Any

from openai import OpenAI

from tests.pictures import PICTURE

URL = f"data:image/png;base64,{PICTURE}"
RESULT = "Sure, <p> the left half </p> [SEG]."


def image(url: str = URL, **options: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **options}}


def user(*content: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return {"role": "user", "content": parts}


SEGMENT: list[Any] = [user("Please segment it.", image())]
HELLO: list[Any] = [{"role": "user", "content": "Hello?"}]


def client_for(url: str, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", **{"api_key": "none", "max_retries": 0, "timeout": 20, **options})
