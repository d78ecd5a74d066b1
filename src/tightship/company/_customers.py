"""Customers, the paid lookups about them, and the bill for those lookups."""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal

import orjson

from tightship.company._call import Answer, Call, Json, Refusal, etag, require_match, to_time
from tightship.company._database import Database, Row

CURRENCIES = {"DE": "EUR", "FR": "EUR", "NL": "EUR", "GB": "GBP", "US": "USD"}
_POSTCODES = {
    "DE": r"\d{5}",
    "FR": r"\d{5}",
    "US": r"\d{5}",
    "GB": r"[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}",
    "NL": r"\d{4} [A-Z]{2}",
}
_CREDIT_LIMITS = {"A": 2000, "B": 1000, "C": 500, "D": 0}


def _view(row: Row) -> Json:
    return {
        "schema": "v2",
        **{name: row[name] for name in ("id", "name", "email", "phone", "tier", "market")},
        "verified": bool(row["verified"]),
        "address": orjson.loads(row["address"]),
        "version": row["version"],
    }


def _as_kept(row: Row) -> Json:
    """The record in the format in which the company keeps it."""
    if row["legacy"] is None:
        return _view(row)
    return {"schema": "v1-legacy", **orjson.loads(row["legacy"]), "version": row["version"]}


class Customers:
    """Operations `customers.*`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def row(self, customer_id: str) -> Row:
        """The customer's row. Raises: Refusal 404."""
        return self._db.row("customers", "customer", customer_id)

    def list(self, call: Call) -> Answer:
        """Customers by e-mail address (in any letter case) and market."""
        email = call.params.get("email")
        filters = {"lower(email)": str(email).lower() if email else None, "market": call.params.get("market")}
        return self._db.listing("customers", filters, call, _as_kept)

    def get(self, call: Call) -> Answer:
        """One customer, as kept or converted. Raises: Refusal 404, 406 when the source cannot convert it."""
        row = self.row(call.text("customer_id"))
        if call.params.get("schema") is None:
            return Answer(_as_kept(row), etag=etag(row["version"]))
        if row["name"] is None or row["email"] is None:
            raise Refusal(406, "not_convertible", "The record has no name or e-mail that could be converted.")
        return Answer(_view(row), etag=etag(row["version"]))

    def update(self, call: Call) -> Answer:
        """Change a customer; it is kept in the new format from then on. Raises: Refusal 404, 409, 412, 428."""
        row = self.row(call.text("customer_id"))
        require_match(call.if_match, row["version"])
        change: Json = dict(call.body)
        if "address" in change:
            change["address"] = orjson.dumps(change["address"]).decode()
        if (change.get("name") or row["name"]) is None or (change.get("email") or row["email"]) is None:
            raise Refusal(409, "not_convertible", "Give name and e-mail: the older record holds neither.")
        change |= {"legacy": None, "version": row["version"] + 1}
        self._db.update("customers", row["id"], change)
        return Answer(
            _view(self.row(row["id"])), etag=etag(row["version"] + 1), result_id=f"{row['id']}@v{row['version'] + 1}"
        )


class Lookups:
    """Operations `lookups.*` and `billing.charges`; the same question always gets the same answer."""

    def __init__(self, db: Database, customers: Customers) -> None:
        self._db = db
        self._customers = customers

    def credit(self, call: Call) -> Answer:
        """The made-up credit standing of a customer. Raises: Refusal 404."""
        row = self._customers.row(call.text("customer_id"))
        score = hashlib.sha256(row["id"].encode()).digest()[0] * 100 // 255
        band = "D" if not row["verified"] else "A" if score >= 70 else "B" if score >= 40 else "C"
        body: Json = {
            "customer_id": row["id"],
            "score": score,
            "band": band,
            "limit": _CREDIT_LIMITS[band],
            "currency": CURRENCIES[row["market"]],
            "as_of": to_time(self._db.clock()),
        }
        return Answer(body)

    def address(self, call: Call) -> Answer:
        """Whether the company delivers to an address, and its normal form."""
        line, city = (" ".join(call.text(name).split()) for name in ("line", "city"))
        postcode = " ".join(call.text("postcode").upper().split())
        country = call.text("country")
        pattern = _POSTCODES.get(country)
        if pattern is None:
            reason = f"The company does not deliver to {country}."
        elif not re.fullmatch(pattern, postcode, re.ASCII):
            reason = f"{postcode} is not a postcode of {country}."
        elif not any(character.isdigit() for character in line):
            reason = "The line has no house number."
        else:
            normal = {"line": line, "city": city.title(), "postcode": postcode, "country": country}
            return Answer({"deliverable": True, "normalized": normal, "reason": None})
        return Answer({"deliverable": False, "normalized": None, "reason": reason})

    def charge(self, operation: str, usd: str) -> None:
        """Put one answered call on the bill."""
        self._db.insert("charges", {"operation": operation, "usd": usd, "at": self._db.clock()})

    def charges(self, call: Call) -> Answer:
        """The bill so far, and its total over all pages."""
        rows, following = self._db.page("charges", {}, call)
        counts = self._db.all("SELECT usd, count(*) AS calls FROM charges GROUP BY usd")
        total = sum((Decimal(row["usd"]) * row["calls"] for row in counts), Decimal("0.0"))
        items = [
            {"id": row["n"], "operation": row["operation"], "usd": row["usd"], "at": to_time(row["at"])} for row in rows
        ]
        return Answer({"items": items, "next": following, "total_usd": f"{total:f}"})
