"""Engines for tests, and random resources built from the definitions of R4, with marked values at every forbidden place."""

import json
import sys
from collections.abc import Iterator
from datetime import date
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

from sidecar.deid import load_policy
from sidecar.deid.general import Engine, KeyedNames, Mode, Tally, VaultNames

TODAY = date(2026, 11, 25)
KEY = bytes(range(32))
Resource = dict[str, Any]
R4 = json.loads(files("sidecar.deid").joinpath("r4.json").read_bytes())
TYPES = sorted(set(R4["resources"]) - {"Bundle", "Parameters"})


class Drawer(dict):
    """A vault in memory."""

    def put(self, name, value):
        assert name not in self or "anchor|" in name, "a token is drawn once"
        self[name] = value


@cache
def policy():
    return load_policy()


def say(text):
    """A figure or a seed, for whoever reads the run."""
    sys.stdout.write(f"{text}\n")


def engine(mode=Mode.KEYED_PSEUDONYMS, *, names=None, today=TODAY, listing=False):
    if names is None:
        names = VaultNames(Drawer()) if mode is Mode.SAFE_HARBOR_RULES else KeyedNames(KEY)
    return Engine(policy(), mode, names, today, Tally(listing=listing))


def bundle(*resources, urls=None):
    """A collection of `resources`, each with the fullUrl of `urls` where it has one."""
    entries = [{"resource": r} for r in resources]
    for entry, url in zip(entries, urls or (), strict=False):
        if url is not None:
            entry["fullUrl"] = url
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def resources_of(out):
    return [entry["resource"] for entry in out["entry"]]


class Chart:
    """Random resources. Each value that must not survive holds a mark of its own, listed in `marks`.

    `planted` has the places, as element paths. A resource has a subject, so that its dates can be moved.
    """

    def __init__(self, seed):
        self._random, self.marks, self.planted = Random(seed), [], set()
        self._clean = False

    def resource(self, type_name=None, depth=0, clean=False):
        """A resource of that type. `clean`: as R4 has it, with nothing marked."""
        self._clean = clean
        type_name = type_name or self._random.choice(TYPES)
        out = {"resourceType": type_name, **self._elements(type_name, R4["resources"][type_name]["elements"], 0)}
        self._maybe(out, "id", 0.9, f"{type_name}.id", self.mark)
        for name in ("text", "meta", "language", "extension"):
            if not clean:
                self._maybe(out, name, 0.2, f"{type_name}.{name}", self._anything)
        if depth < 2:
            held = self._some(0.3, 3, lambda: self.resource(depth=depth + 2, clean=clean))
            if held:
                out["contained"] = held
        return out

    def bundle(self, depth=0):
        """A Bundle of some resources, now and then with a Bundle in it."""
        inner = [self.resource() for _ in range(self._random.randint(1, 4))]
        if depth < 2 and self._random.random() < 0.3:
            inner.append(self.bundle(depth + 1))
        out = bundle(*inner, urls=[self._url("Bundle.entry.fullUrl") for _ in inner])
        for entry in out["entry"]:
            self._spoil(entry, "Bundle.entry")
        self._maybe(out, "id", 0.5, "Bundle.id", self.mark)
        self._maybe(out, "identifier", 0.5, "Bundle.identifier", self._anything)
        return out

    def parameters(self):
        """Parameters with resources, and parameters in parameters."""

        def one(depth=0):
            out = {"name": self.mark("Parameters.parameter.name"), "resource": self.resource()}
            out["valueString"] = self.mark("Parameters.parameter.value[x]")
            if depth < 3:
                out["part"] = [one(depth + 1)]
            self._spoil(out, "Parameters.parameter")
            return out

        return {"resourceType": "Parameters", "parameter": [one() for _ in range(self._random.randint(1, 2))]}

    def mark(self, path):
        """A value of which nothing may be left: a word, a number, or an address with it inside."""
        self.planted.add(path)
        word = f"zq{self._random.getrandbits(40):010x}"
        self.marks.append(word)
        return self._random.choice(
            [word, word.upper(), f"Mr {word}", f"http://{word}.example/Patient/{word}", f"urn:{word}"]
        )

    def number(self):
        """The same of a bare number."""
        value = self._random.randrange(10**11, 10**12)
        self.marks.append(str(value))
        return value

    def _url(self, path):
        return self._random.choice([f"urn:uuid:{self.mark(path)}", self.mark(path), None])

    def _maybe(self, out, name, chance, path, make):
        if self._random.random() < chance:
            out[name] = make(path)

    def _some(self, chance, most, make):
        return [make() for _ in range(self._random.randint(1, most))] if self._random.random() < chance else []

    def _anything(self, path):
        """Marks in whatever shape."""
        return self._random.choice(
            [
                lambda: self.mark(path), self.number, lambda: [self.mark(path)], lambda: {"value": self.mark(path), "x": self.number()},
                lambda: [{"url": self.mark(path), "valueString": self.mark(path), "extension": [{"url": self.mark(path)}]}],
                lambda: [{"family": self.mark(path), "given": [self.mark(path)]}],
            ]
        )()  # fmt: skip

    def _spoil(self, out, path):
        """Unknown elements, unknown extensions, and siblings of primitives, beside what is in `out`."""
        if self._clean:
            return
        names = list(out)
        if self._random.random() < 0.4:
            out[self.mark(f"{path}.?").replace("/", "")] = self._anything(f"{path}.?")
        if names and self._random.random() < 0.5:
            name = self._random.choice(names)
            out[f"_{name}"] = {"id": self.mark(f"{path}._"), "extension": self._anything(f"{path}._")}
        if self._random.random() < 0.3:
            more = [{"url": self.mark(f"{path}.extension"), "valueCode": self.mark(f"{path}.extension")}]
            out["extension"] = [*more, *(out.get("extension") if isinstance(out.get("extension"), list) else [])]

    def _elements(self, path, elements, depth):
        out = {}
        for name, spec in elements.items():
            if self._random.random() > (0.5 if depth == 0 else 0.35):
                continue
            found = _like(spec["same"]) if "same" in spec else spec
            if "elements" in found:
                make = lambda f=found, n=name: self._elements(f"{path}.{n}", f["elements"], depth + 1)  # noqa: E731
                kind = None
            else:
                kind = self._random.choice(found["types"])
                make = lambda k=kind, f=found, n=name: self._value(f"{path}.{n}", k, f.get("codes"), depth)  # noqa: E731
            if depth > 4 or kind in ("Resource", "Extension"):
                continue
            written = name.removesuffix("[x]") + (kind[0].upper() + kind[1:] if name.endswith("[x]") and kind else "")
            made = [make() for _ in range(self._random.randint(1, 2))] if spec.get("many") else make()
            out[written] = made
        self._spoil(out, path)
        return out

    def _value(self, path, kind, codes, depth):
        """A value of the R4 type `kind`; one in forty is a mark instead."""
        if not self._clean and self._random.random() < 0.025:
            return self.mark(path)
        simple = self._simple(path, kind, codes)
        if simple is not None:
            return simple
        if kind in R4["datatypes"] and depth < 5:
            table = R4["datatypes"][kind]
            elements = table["elements"] or R4["datatypes"][table["of"]]["elements"]
            return self._elements(path, elements, depth + 1)
        return self._anything(path) if not self._clean else None

    def _simple(self, path, kind, codes):
        random = self._random
        day = f"{random.randint(1930, 2027)}-{random.randint(1, 12):02}-{random.randint(1, 28):02}"
        time = f"{random.randint(0, 23):02}:{random.randint(0, 59):02}:{random.randint(0, 59):02}"
        zone = random.choice(["Z", "+00:00", "-05:00", "+14:00", "-12:00", "+05:30"])
        coding = {
            "system": random.choice(["http://loinc.org", "http://snomed.info/sct"]),
            "code": random.choice(["8867-4", "248234008"]),
        }
        local = {} if self._clean else {"system": self.mark(path), "code": self.mark(path)}
        makers = {
            "boolean": lambda: random.random() < 0.5,
            "integer": lambda: random.randint(0, 100),
            "positiveInt": lambda: random.randint(1, 100),
            "unsignedInt": lambda: random.randint(0, 100),
            "decimal": lambda: round(random.uniform(0, 200), 2),
            "date": lambda: random.choice([day, day[:4], day[:7]]),
            "dateTime": lambda: random.choice([day, day[:4], f"{day}T{time}{zone}", f"{day}T{time}.123{zone}"]),
            "instant": lambda: f"{day}T{time}{zone}",
            "time": lambda: time,
            "code": lambda: random.choice(R4["codes"][codes]) if codes else (None if self._clean else self.mark(path)),
            "Coding": lambda: random.choice([coding, coding, local]) if not self._clean else coding,
            "CodeableConcept": lambda: self._concept(path, coding, local),
            "Reference": lambda: self._reference(path),
        }
        return makers[kind]() if kind in makers else None

    def _concept(self, path, coding, local):
        if self._clean:
            return {"coding": [coding]}
        shown = {
            **coding,
            "display": self.mark(f"{path}.coding.display"),
            "version": self.mark(f"{path}.coding.version"),
        }
        out = {
            "coding": self._random.choice([[shown], [local, shown], [shown, local]]),
            "text": self.mark(f"{path}.text"),
        }
        self._spoil(out, path)
        return out

    def _reference(self, path):
        if self._clean:
            return {"reference": f"Patient/p{self._random.randint(1, 9)}"}
        logical_id = f"zq{self._random.getrandbits(40):010x}"
        self.marks.append(logical_id)
        written = self._random.choice(
            [
                f"Patient/{logical_id}", f"Encounter/{logical_id}", f"http://h.example/fhir/Patient/{logical_id}", f"#{logical_id}",
                f"urn:uuid:{logical_id}", f"Patient/{logical_id}/_history/3", f"Patient?identifier=s|{logical_id}", f"{logical_id}/1",
                f"Patient/{logical_id}\n", f"Patient/../{logical_id}",
            ]
        )  # fmt: skip
        out = {
            "reference": written,
            "display": self.mark(f"{path}.display"),
            "identifier": {"value": self.mark(f"{path}.identifier")},
        }
        if self._random.random() < 0.3:
            out["type"] = self._random.choice(["Patient", self.mark(f"{path}.type")])
        self._spoil(out, path)
        return out


def _like(path):
    type_name, *names = path.split(".")
    found = R4["resources"][type_name]
    for name in names:
        found = found["elements"][name]
    return found


def words_of(value) -> Iterator[str]:
    """Every string and number of a JSON value, keys too."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from words_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from words_of(each)
    elif value is not None:
        yield str(value)
