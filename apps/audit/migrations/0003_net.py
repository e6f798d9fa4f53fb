"""The net (``apps.audit.net``): what its triggers do, and the first table that it watches."""

from django.db import migrations

from apps.audit.net import watch

NET = """
-- An id as core.ids makes them (UUIDv7): milliseconds, then random bits. PostgreSQL has uuidv7() from version 18 on.
CREATE FUNCTION esper_audit_new_id(at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(set_bit(set_bit(overlay(
        uuid_send(gen_random_uuid())
        PLACING substring(int8send(floor(extract(epoch FROM at) * 1000)::bigint) FROM 3) FROM 1 FOR 6
    ), 52, 1), 53, 1), 'hex')::uuid
$$;

-- A time as Python's isoformat() writes it in UTC: no fraction where there is none.
CREATE FUNCTION esper_audit_iso(at timestamptz) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
        || CASE to_char(at, 'US') WHEN '000000' THEN '' ELSE to_char(at, '.US') END || '+00:00'
$$;

-- An event of the database itself. ``told`` is the payload as canonical JSON (RFC 8785); the leaf is made of the same
-- text as in apps/audit/canonical.py: members sorted, nothing between them.
CREATE FUNCTION esper_audit_append(type text, kind text, subject text, reason text, told text) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    at timestamptz := clock_timestamp();
    id uuid := esper_audit_new_id(at);
    document text := concat(
        '{"actor_digest":"","actor_id":null,"actor_kind":"system","address_digest":"","at":"', esper_audit_iso(at),
        '","diff":[],"id":"', id, '","outcome":"failure","payload":', told, ',"reason":', to_json(reason),
        ',"request_id":"","subject_id":', to_json(subject), ',"subject_type":', to_json(kind),
        ',"token_id":"","trace_id":"","type":', to_json(type), ',"workspace_id":null}'
    );
BEGIN
    INSERT INTO audit_auditevent (
        id, at, type, subject_type, subject_id, actor_kind, actor_digest, address_digest, token_id, request_id,
        trace_id, reason, outcome, diff, payload, leaf
    ) VALUES (
        id, at, type, kind, subject, 'system', '', '', '', '', '', reason, 'failure', '[]', told::jsonb,
        sha256('\\x00'::bytea || convert_to(document, 'UTF8'))
    );
END $$;

-- Runs at the commit, for each row that came, went or changed: has this transaction recorded an event about it? If not,
-- it records two itself. No setting silences it: it looks at what was recorded. Its own settings, and OFFSET 0, keep
-- every plan to this transaction's events and their keys, whatever the statistics said when it was made.
CREATE FUNCTION esper_audit_net() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    subjects text[];
    subject text;
    columns text[];
    told text;
    reason text;
BEGIN
    IF TG_ARGV[1] = 'id' THEN
        subjects := ARRAY[OLD.id::text, NEW.id::text];
    ELSE
        subjects := ARRAY[to_jsonb(OLD) ->> TG_ARGV[1], to_jsonb(NEW) ->> TG_ARGV[1]];
    END IF;
    IF subjects[1] = subjects[2] THEN
        subjects := subjects[1:1];
    END IF;
    FOREACH subject IN ARRAY subjects LOOP
        CONTINUE WHEN subject IS NULL;
        PERFORM FROM (
            SELECT event_id, at FROM audit_auditpending WHERE xid = pg_current_xact_id() OFFSET 0
        ) AS pending, LATERAL (
            SELECT subject_type, subject_id FROM audit_auditevent
            WHERE id = pending.event_id AND at = pending.at OFFSET 0
        ) AS event WHERE event.subject_type = TG_ARGV[0] AND event.subject_id = subject LIMIT 1;
        CONTINUE WHEN FOUND;
        columns := ARRAY(
            SELECT key FROM jsonb_each(to_jsonb(OLD)) AS was JOIN jsonb_each(to_jsonb(NEW)) AS became USING (key)
            WHERE was.value <> became.value ORDER BY key COLLATE "C"
        );
        told := concat(
            '{"application":', to_json(current_setting('application_name')),
            ',"columns":', array_to_json(columns),
            ',"operation":', to_json(TG_OP),
            ',"role":', to_json(session_user::text),
            ',"table":', to_json(TG_TABLE_NAME::text), '}'
        );
        reason := concat_ws(
            ' ', 'no event was recorded for the', TG_OP, 'of ' || nullif(array_to_string(columns, ', '), ''), 'in',
            TG_TABLE_NAME, 'by the database role', session_user
        );
        PERFORM esper_audit_append('audit.unattributed', TG_ARGV[0], subject, reason, told);
        PERFORM esper_audit_append('alert.unattributed', TG_ARGV[0], subject, reason, told);
    END LOOP;
    RETURN NULL;
END $$;

-- TRUNCATE fires no row trigger.
CREATE FUNCTION esper_audit_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail watches %: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege', HINT = 'DELETE is possible, and recorded.';
END $$;

REVOKE ALL ON FUNCTION esper_audit_new_id(timestamptz), esper_audit_iso(timestamptz),
    esper_audit_append(text, text, text, text, text), esper_audit_net(), esper_audit_keep() FROM PUBLIC;
"""

DROP_NET = """
DROP FUNCTION esper_audit_net();
DROP FUNCTION esper_audit_keep();
DROP FUNCTION esper_audit_append(text, text, text, text, text);
DROP FUNCTION esper_audit_iso(timestamptz);
DROP FUNCTION esper_audit_new_id(timestamptz);
"""


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0002_sealing"),
    ]

    operations = [
        migrations.RunSQL(NET, reverse_sql=DROP_NET),
        watch(
            "audit_auditreport",
            subject="report",
            columns=[
                "id",
                "kind",
                "parameters",
                "as_of",
                "state",
                "requested_by",
                "size",
                "root",
                "name",
                "sha256",
                "rows",
                "note",
                "failure",
                "finished_at",
            ],
        ),
    ]
