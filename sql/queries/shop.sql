-- The demo's shop: the rows that it writes with an event, the changes of its handlers, and the playing of past
-- days.

-- name: others
-- What belongs to an application: without a shop, any event; with one, an event of a type that the shop does not
-- write. The outbox may be empty, so the ledger and the audit log count too.
select case
    when to_regclass(format('%%I.%%I', :'outbox_schema', 'shop_day')) is not null then (
        select format('it holds an event of type %%s', event_type) from (
            select event_type from :"outbox_schema".:"outbox_table"
            union all select event_type from :"dlq_schema".archive
            union all select event_type from :"dlq_schema".death
        ) known where event_type <> all(%(types)s) limit 1)
    when exists (select from :"outbox_schema".:"outbox_table") then 'its outbox holds events'
    when exists (select from :"dlq_schema".archive) then 'its archive holds events'
    when exists (select from :"dlq_schema".audit where kind = 'demo.begin') then null
    when exists (select from :"dlq_schema".death) then 'its ledger holds deaths'
    when exists (select from :"dlq_schema".audit) then 'its audit log holds entries'
    end as found

-- name: drop
drop table if exists :"outbox_schema".shop_price_list, :"outbox_schema".shop_mail,
    :"outbox_schema".shop_stock_movement, :"outbox_schema".shop_parcel, :"outbox_schema".shop_order,
    :"outbox_schema".shop_customer, :"outbox_schema".shop_day

-- name: play_day
-- Returns no row if the day was played before.
insert into :"outbox_schema".shop_day (day, seed, events) values (%(day)s, %(seed)s, %(events)s)
on conflict (day) do nothing
returning day

-- name: customer
insert into :"outbox_schema".shop_customer (number, email, credit) values (%(number)s, %(email)s, %(credit)s)
on conflict (number) do nothing

-- name: order
insert into :"outbox_schema".shop_order (number, customer, amount, placed_at)
values (%(number)s, %(customer)s, %(amount)s, %(at)s)

-- name: movement_by_hand
insert into :"outbox_schema".shop_stock_movement (slip, quantity, booked_by, booked_at)
values (%(slip)s, %(quantity)s, 'hand', %(at)s)

-- name: parcel
insert into :"outbox_schema".shop_parcel (order_number, packed_at) values (%(order)s, %(at)s)

-- name: pickup
update :"outbox_schema".shop_parcel set depot = %(depot)s where order_number = %(order)s

-- name: mail
insert into :"outbox_schema".shop_mail (number, customer, written_at) values (%(number)s, %(customer)s, %(at)s)

-- name: price_list
insert into :"outbox_schema".shop_price_list (number, supplier, received_at)
values (%(number)s, %(supplier)s, %(at)s)

-- name: event
-- The event is due as soon as it is written.
insert into :"outbox_schema".:"outbox_table"
    (aggregate_type, aggregate_id, event_type, payload, next_run_at, created_at)
values (%(aggregate_type)s, %(aggregate_id)s, %(event_type)s, %(payload)s, %(at)s, %(at)s)

-- name: confirm_order
update :"outbox_schema".shop_order set confirmed_at = clock_timestamp() where number = %(order)s

-- name: credit
select c.credit from :"outbox_schema".shop_order o join :"outbox_schema".shop_customer c on c.number = o.customer
where o.number = %(order)s

-- name: settle_payment
update :"outbox_schema".shop_order set paid_at = clock_timestamp() where number = %(order)s

-- name: issue_invoice
update :"outbox_schema".shop_order
set invoiced_at = clock_timestamp(), invoice_line = %(line)s
where number = %(order)s

-- name: book_stock
-- An event that is delivered twice finds its own movement and books nothing. A slip that was booked by hand
-- violates the primary key, on purpose.
insert into :"outbox_schema".shop_stock_movement (slip, quantity, booked_by)
select %(slip)s, %(quantity)s, %(event)s::text
where not exists (
    select from :"outbox_schema".shop_stock_movement where slip = %(slip)s and booked_by = %(event)s::text
)

-- name: label_parcel
update :"outbox_schema".shop_parcel set label = %(label)s where order_number = %(order)s

-- name: pick_up_parcel
update :"outbox_schema".shop_parcel set picked_up_at = clock_timestamp() where order_number = %(order)s

-- name: send_mail
update :"outbox_schema".shop_mail set sent_at = clock_timestamp() where number = %(number)s

-- name: read_prices
update :"outbox_schema".shop_price_list set prices = %(prices)s where number = %(number)s

-- name: waiting
-- Events that are neither delivered nor dead: due, backing off or leased.
select count(*) as events from :"outbox_schema".:"outbox_table" where status in ('pending', 'retry')

-- name: backdate
-- A played day is delivered in seconds, today; its deaths must lie on that day. This is the only statement that
-- rewrites the ledger, which is append-only outside the demo. It moves the deaths of events created in [start,
-- stop) to the creation plus the four back-offs of 30, 60, 120 and 240 seconds and up to a minute and a half of
-- work, but no later than the day's last millisecond and than now. Classified deaths, and deaths of events that a person retried, are not moved.
with moved as (
    select d.id as death_id, e.id as event_id,
        least(
            e.created_at + make_interval(secs => 450 + (e.id * 7919) %% 90000 / 1000.0),
            %(stop)s::timestamptz - interval '1 millisecond',
            %(now)s::timestamptz
        ) as at
    from :"outbox_schema".:"outbox_table" e
    join :"dlq_schema".death d
        on d.event_id = e.id and d.event_created_at = e.created_at and d.ended_at is null
    where e.status = 'dead' and d.cause_id is null
        and e.created_at >= %(start)s and e.created_at < %(stop)s
        and not exists (select from :"dlq_schema".retry r where r.event_id = e.id)
), events as (
    update :"outbox_schema".:"outbox_table" e set last_error_at = moved.at
    from moved where e.id = moved.event_id
), deaths as (
    update :"dlq_schema".death d set died_at = moved.at from moved where d.id = moved.death_id
)
select count(*) as deaths from moved
