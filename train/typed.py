"""Values in words (`--set NAME=VALUE`) against what they are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError


def typed(values: Mapping[str, Any], *targets: type | Callable[..., Any]) -> dict[str, Any]:
    """The values as the annotations of `targets` want them; of a name that several have, the last one's counts. A name that
    none has is left as it is, for the target itself to refuse.

    Raises:
        ValueError: a value of another type; it is named.
    """
    hints: dict[str, Any] = {}
    for target in targets:
        hints |= get_type_hints(target)
    return {name: _typed(name, value, hints[name]) if name in hints else value for name, value in values.items()}


def _typed(name: str, value: Any, hint: Any) -> Any:
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        said = error.errors()[-1]["msg"]
        raise ValueError(f"{name}={value!r}: {said[0].lower()}{said[1:]}") from None
    except PydanticSchemaGenerationError:  # nothing that could be said in words
        return value
