-- Tables of the sample company. `n` is the order of creation (and the cursor of lists); money is in
-- hundredths of the record's currency; times are seconds since 1970 and never part of the canonical state.

CREATE TABLE customers (
    n        INTEGER PRIMARY KEY,
    id       TEXT NOT NULL UNIQUE,
    name     TEXT,              -- name and email are unknown on a record that nobody has converted
    email    TEXT,
    phone    TEXT,
    tier     TEXT NOT NULL,
    market   TEXT NOT NULL,
    verified INTEGER NOT NULL,
    address  TEXT NOT NULL,     -- JSON
    legacy   TEXT,              -- JSON of the older format, where the record is still served in it
    version  INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE INDEX customers_by_email ON customers (lower(email));

CREATE TABLE orders (
    n            INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    customer_id  TEXT NOT NULL REFERENCES customers (id),
    status       TEXT NOT NULL,
    items        TEXT NOT NULL, -- JSON: what was bought, at the price of that day
    total        INTEGER NOT NULL,
    currency     TEXT NOT NULL,
    placed_at    REAL NOT NULL,
    delivered_at REAL,
    policies     TEXT NOT NULL, -- JSON
    note         TEXT,
    version      INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE INDEX orders_by_customer ON orders (customer_id);

CREATE TABLE payments (
    n           INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    order_id    TEXT NOT NULL REFERENCES orders (id),
    amount      INTEGER NOT NULL,
    method      TEXT NOT NULL,
    status      TEXT NOT NULL DEFAULT 'captured',
    client_ref  TEXT,
    captured_at REAL NOT NULL
) STRICT;
CREATE INDEX payments_by_order ON payments (order_id);
CREATE INDEX payments_by_client_ref ON payments (client_ref);

CREATE TABLE reservations (
    n          INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    order_id   TEXT NOT NULL REFERENCES orders (id),
    lines      TEXT NOT NULL, -- JSON
    status     TEXT NOT NULL,
    client_ref TEXT,
    created_at REAL NOT NULL
) STRICT;
CREATE INDEX reservations_by_order ON reservations (order_id);

CREATE TABLE shipments (
    n          INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    order_id   TEXT NOT NULL REFERENCES orders (id),
    lines      TEXT NOT NULL, -- JSON
    status     TEXT NOT NULL,
    client_ref TEXT,
    created_at REAL NOT NULL
) STRICT;
CREATE INDEX shipments_by_order ON shipments (order_id);

CREATE TABLE invoices (
    n          INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    order_id   TEXT NOT NULL REFERENCES orders (id),
    amount     INTEGER NOT NULL CHECK (amount > 0),
    status     TEXT NOT NULL,
    client_ref TEXT,
    created_at REAL NOT NULL
) STRICT;
CREATE INDEX invoices_by_order ON invoices (order_id);

CREATE TABLE refunds (
    n           INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    order_id    TEXT NOT NULL REFERENCES orders (id),
    amount      INTEGER NOT NULL CHECK (amount > 0),
    reason      TEXT NOT NULL,
    status      TEXT NOT NULL,
    approved_by TEXT,
    client_ref  TEXT,
    created_at  REAL NOT NULL
) STRICT;
CREATE INDEX refunds_by_order ON refunds (order_id);
CREATE INDEX refunds_by_client_ref ON refunds (client_ref);

CREATE VIEW orders_view AS
SELECT o.*,
       (SELECT coalesce(sum(p.amount), 0) FROM payments p
         WHERE p.order_id = o.id AND p.status = 'captured') AS paid,
       (SELECT coalesce(sum(r.amount), 0) FROM refunds r
         WHERE r.order_id = o.id AND r.status <> 'cancelled') AS refunded
  FROM orders o;

CREATE VIEW payments_view AS
SELECT p.*, o.currency FROM payments p JOIN orders o ON o.id = p.order_id;

CREATE VIEW refunds_view AS
SELECT r.*, o.customer_id, o.currency FROM refunds r JOIN orders o ON o.id = r.order_id;

CREATE TABLE tickets (
    n           INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    customer_id TEXT REFERENCES customers (id),
    order_id    TEXT REFERENCES orders (id),
    subject     TEXT NOT NULL,
    body        TEXT NOT NULL,
    status      TEXT NOT NULL,
    priority    TEXT NOT NULL,
    channel     TEXT NOT NULL,
    assignee    TEXT,
    tags        TEXT NOT NULL DEFAULT '[]', -- JSON
    escalation  TEXT,                       -- JSON
    client_ref  TEXT,
    created_at  REAL NOT NULL,
    updated_at  REAL NOT NULL,
    version     INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE INDEX tickets_by_customer ON tickets (customer_id);
CREATE INDEX tickets_by_order ON tickets (order_id);
CREATE INDEX tickets_by_client_ref ON tickets (client_ref);

CREATE TABLE messages (
    n          INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    ticket_id  TEXT NOT NULL REFERENCES tickets (id),
    kind       TEXT NOT NULL CHECK (kind IN ('reply', 'note')),
    body       TEXT NOT NULL,
    author     TEXT,
    client_ref TEXT,
    retracted  INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL
) STRICT;
CREATE INDEX messages_by_ticket ON messages (ticket_id, kind);

CREATE TABLE stock (
    n             INTEGER PRIMARY KEY,
    sku           TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    unit_price    INTEGER NOT NULL,
    on_hand       INTEGER NOT NULL CHECK (on_hand >= 0),
    in_transit    INTEGER NOT NULL CHECK (in_transit >= 0),
    reorder_point INTEGER NOT NULL,
    supplier      TEXT NOT NULL,
    version       INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE TABLE purchase_orders (
    n           INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    sku         TEXT NOT NULL REFERENCES stock (sku),
    quantity    INTEGER NOT NULL CHECK (quantity > 0),
    status      TEXT NOT NULL,
    expected_at REAL NOT NULL,
    client_ref  TEXT,
    created_at  REAL NOT NULL
) STRICT;
CREATE INDEX purchase_orders_by_sku ON purchase_orders (sku);
CREATE INDEX purchase_orders_by_client_ref ON purchase_orders (client_ref);

-- The trading desk. `lag` is by how many seconds the feed of a price is behind; `held` is negative for a short position.
CREATE TABLE instruments (
    n          INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    issuer     TEXT NOT NULL,
    price      INTEGER NOT NULL CHECK (price > 0),
    lag        REAL NOT NULL,
    restricted INTEGER NOT NULL,
    held       INTEGER NOT NULL,
    held_limit INTEGER NOT NULL
) STRICT;

CREATE TABLE counterparties (
    n           INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL,
    status      TEXT NOT NULL,
    credit_line INTEGER NOT NULL,
    used        INTEGER NOT NULL CHECK (used >= 0),
    confirms    INTEGER NOT NULL -- whether it answers what is sent to it
) STRICT;

CREATE TABLE traders (
    n           INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL,
    trade_limit INTEGER NOT NULL,
    interests   TEXT NOT NULL -- JSON
) STRICT;

CREATE TABLE trades (
    n               INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    instrument_id   TEXT NOT NULL REFERENCES instruments (id),
    counterparty_id TEXT NOT NULL REFERENCES counterparties (id),
    trader_id       TEXT NOT NULL REFERENCES traders (id),
    side            TEXT NOT NULL,
    quantity        INTEGER NOT NULL CHECK (quantity > 0),
    price           INTEGER NOT NULL,
    status          TEXT NOT NULL,
    client_ref      TEXT,
    created_at      REAL NOT NULL
) STRICT;
CREATE INDEX trades_by_instrument ON trades (instrument_id);
CREATE INDEX trades_by_client_ref ON trades (client_ref);

-- What the company itself knows about the calls it answered.
CREATE TABLE charges (
    n         INTEGER PRIMARY KEY,
    operation TEXT NOT NULL,
    usd       TEXT NOT NULL,
    at        REAL NOT NULL
) STRICT;

CREATE TABLE ledger (
    n               INTEGER PRIMARY KEY,
    operation       TEXT NOT NULL,
    path            TEXT NOT NULL,
    idempotency_key TEXT,
    client_ref      TEXT,
    body            TEXT NOT NULL, -- JSON
    result_id       TEXT NOT NULL
) STRICT;

CREATE TABLE answers (
    operation   TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    status      INTEGER NOT NULL,
    body        TEXT NOT NULL, -- JSON
    etag        TEXT,
    PRIMARY KEY (operation, key)
) STRICT, WITHOUT ROWID;
