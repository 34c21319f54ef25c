"""Values that nobody else has, one for each place of a chart where identity may stand.

Words are ten letters or more, none of them a hex digit; numbers have sixteen digits; so none is met by chance.
"""

import base64
from datetime import UTC, datetime, timedelta
from random import Random

from tests.campaigns.leaks import Canary

_LETTERS = "ghjkmnpqrstvwxyz"
_FIRST_DAY = datetime(1929, 1, 1, tzinfo=UTC)
_DAYS = 40 * 365


class Planter:
    """Makes values and remembers where each was planted; the same generator makes the same ones."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.canaries: list[Canary] = []

    def _plant(self, path: str, value: str, core: str) -> str:
        self.canaries.append(Canary(path, value, core))
        return value

    def _word(self) -> str:
        return "".join(self._rng.choices(_LETTERS, k=self._rng.randint(10, 12))).capitalize()

    def _number(self) -> str:
        return str(self._rng.randrange(10**15, 10**16))

    def words(self, path: str) -> str:
        """Two words: a text, a display, a name."""
        text = f"{self._word()} {self._word()}"
        return self._plant(path, text, text)

    def name(self, path: str) -> str:
        """Two words among others."""
        core = f"{self._word()} {self._word()}"
        return self._plant(path, f"Dr. {core}, née Müller", core)

    def id(self, path: str) -> str:
        """A FHIR id."""
        text = f"{self._word().lower()}-{self._number()}"
        return self._plant(path, text, text)

    def digits(self, path: str) -> str:
        """A number as people write it."""
        n = self._number()
        text = f"{n[:4]}-{n[4:8]} {n[8:12]}/{n[12:]}"
        return self._plant(path, text, text)

    def decimal(self, path: str) -> float:
        """A measured value that no model reads."""
        n = self._number()
        number = float(f"{n[:9]}.{n[9:15]}1")
        self._plant(path, repr(number), repr(number))
        return number

    def instant(self, path: str) -> str:
        """A moment to the microsecond."""
        at = _FIRST_DAY + timedelta(days=self._rng.randrange(_DAYS), microseconds=self._rng.randrange(86_400_000_000))
        core = at.strftime("%Y-%m-%dT%H:%M:%S.%f")
        return self._plant(path, f"{core}Z", core)

    def date(self, path: str) -> str:
        """A day."""
        text = (_FIRST_DAY + timedelta(days=self._rng.randrange(_DAYS))).strftime("%Y-%m-%d")
        return self._plant(path, text, text)

    def address(self, path: str) -> str:
        """A URL."""
        core = f"{self._word().lower()}.{self._word().lower()}"
        return self._plant(path, f"http://{core}.example/a?b=c", core)

    def mail(self, path: str) -> str:
        """An e-mail address."""
        core = f"{self._word().lower()}.{self._word().lower()}"
        return self._plant(path, f"{core}@mail.example", core)

    def token(self, path: str) -> str:
        """A URN."""
        core = f"{self._word().lower()}:{self._number()}"
        return self._plant(path, f"urn:x:{core}", core)

    def code(self, path: str) -> str:
        """One word, as a code or the name of an element."""
        text = self._word()
        return self._plant(path, text, text)

    def blob(self, path: str) -> str:
        """A text in Base64."""
        core = f"{self._word()} {self._word()}"
        return self._plant(path, base64.b64encode(f"Letter to {core}.".encode()).decode(), core)
