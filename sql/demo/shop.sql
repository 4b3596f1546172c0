-- The demo shop's tables. Only the demo creates and reads them.
create table if not exists :"outbox_schema".shop_day (
    day       date        primary key,  -- a played day; committed with all of its rows
    seed      bigint      not null,
    events    integer     not null,
    played_at timestamptz not null default now()
);

create table if not exists :"outbox_schema".shop_customer (
    number integer       primary key,
    email  text          not null unique,
    credit numeric(10,2) not null  -- maximum of one order, in euros
);

create table if not exists :"outbox_schema".shop_order (
    number       text          primary key,
    customer     integer       not null references :"outbox_schema".shop_customer,
    amount       numeric(10,2) not null,
    placed_at    timestamptz   not null,
    confirmed_at timestamptz,  -- the handlers write these four
    paid_at      timestamptz,
    invoiced_at  timestamptz,
    invoice_line text
);

create table if not exists :"outbox_schema".shop_parcel (
    order_number text        primary key references :"outbox_schema".shop_order,
    packed_at    timestamptz not null,
    depot        text,        -- where the carrier fetches it
    label        text,        -- written by the handler
    picked_up_at timestamptz  -- written by the handler
);

create table if not exists :"outbox_schema".shop_stock_movement (
    slip      text        primary key,  -- a slip is booked once
    quantity  integer     not null,
    booked_by text        not null,     -- 'hand', or the event that booked it
    booked_at timestamptz not null default now()
);

create table if not exists :"outbox_schema".shop_mail (
    number     text        primary key,
    customer   integer     not null references :"outbox_schema".shop_customer,
    written_at timestamptz not null,
    sent_at    timestamptz  -- written by the handler
);

create table if not exists :"outbox_schema".shop_price_list (
    number      text        primary key,
    supplier    text        not null,
    received_at timestamptz not null,
    prices      integer  -- how many were read, written by the handler
);
