"""The rate grammar: `0.1:0.9`, `0.1:0.9:0.05`, `0.25,0.5`."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from core.errors import InputError

_FORMS = "write first:last, first:last:step or a comma list, such as 0.1:0.9 or 0.25,0.5"


def parse_rates(text: str) -> tuple[float, ...]:
    """The rates that the text stands for, ascending, each once.

    A range includes its last rate where the step meets it; the step is 0.1 unless given. Grids are
    computed in decimal, so the third rate of `0.1:0.9` is 0.3 and not 0.30000000000000004.

    Raises:
        InputError: not a number, outside (0, 1), a reversed range or a step that is not positive.
    """
    parts = [part for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError(f"rates {text!r} name none; {_FORMS}")
    return tuple(sorted({float(rate) for part in parts for rate in _grid(part.strip())}))


def _grid(part: str) -> list[Decimal]:
    numbers = [_number(piece, part) for piece in part.split(":")]
    if len(numbers) == 1:
        return [_inside(numbers[0])]
    if len(numbers) > 3:
        raise InputError(f"rates {part!r} have too many colons; {_FORMS}")
    first, last = _inside(numbers[0]), _inside(numbers[1])
    step = numbers[2] if len(numbers) == 3 else Decimal("0.1")
    if first > last:
        raise InputError(f"rates {part!r} are reversed; write the lower first: {last}:{first}")
    if step < Decimal("0.001"):
        raise InputError(f"the step of rates {part!r} is {step}; expected 0.001 or more")
    return [first + index * step for index in range(int((last - first) / step) + 1)]


def _number(piece: str, part: str) -> Decimal:
    try:
        number = Decimal(piece.strip())
    except InvalidOperation:
        raise InputError(f"{piece!r} in rates {part!r} is not a number; {_FORMS}") from None
    if not number.is_finite():
        raise InputError(f"{piece!r} in rates {part!r} is not a finite number; {_FORMS}")
    return number


def _inside(rate: Decimal) -> Decimal:
    if not 0 < float(rate) < 1:
        raise InputError(
            f"rate {rate} is outside (0, 1): it is the fraction that is removed, such as 0.5"
        )
    return rate
