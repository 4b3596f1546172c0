"""Lists the words that announce a code to keep, or a value to hide.

The sets are English and technical, and hold no library's messages. A missing word may split a
cause; a word too many hides a word that could have stayed.
"""

from http import HTTPStatus


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


CODE_WORDS = _set(
    "code err errno error errorcode exit exitcode exited hresult http https rc returncode signal"
    " sqlstate status statuscode winerror"
)
"""Before a number or a token with digits: the token is a code, not a count."""

ANSWER_WORDS = _set(
    "answered api got received responded response returned server upstream was with"
)
"""Before a number between 400 and 599: the number is most likely an HTTP status."""

ANSWER_VERBS = _set("answered responded response returned")
"""Before such a number inside a sentence too: "answered 503 after 30s", but "got 404 rows"."""

STATUS_WORDS = frozenset(status.phrase.split()[0] for status in HTTPStatus) | {
    "Client",
    "Server",
    "error",
    "response",
}
"""First words of HTTP's reason phrases, of "404 Client Error" and of "503 error responses"."""

VENDOR_CODES = _set("CRS ORA PLS SQL TNS")
"""Before a hyphen and a number: a database's code, as in ORA-00942. Others may be order numbers."""

FAILURE_KEYS = CODE_WORDS | _set(
    "desc description detail details error_code error_description error_message errormessage"
    " exit_code grpc_status http_status httpstatus httpstatuscode message msg reason state"
    " status_code str title type"
)
"""Keys whose value states what failed, in JSON, key=value and repr()."""

SENTENCE_KEYS = _set("desc description detail details message msg reason")
"""Keys whose quoted value is a sentence, also after a bare colon."""

KINDS = _set(
    "account aggregate argument attribute backend branch bucket called carrier cast channel class"
    " collation column columns command configuration connector constant constraint consumer"
    " container conversion country currency cursor customer database dialect dictionary directory"
    " domain dtype encoding entity event exchange extension family field file function group"
    " handler host image index job key keyspace language library mapping method model module named"
    " namespace node object operator option order package parameter parameters parser partition"
    " plugin pod policy portal procedure project property provider publication queue region"
    " relation repository role routine rule savepoint schema sequence server service statement"
    " statistics stream subscription table tables tablespace task template tenant topic trigger"
    " type types user variable view views warehouse worker workspace wrapper"
)
"""Nouns before a name: "for table orders", "unknown topic orders"."""

NAME_LEADS = _set(
    "ambiguous by drop duplicate for from in invalid missing no of on such the to undefined"
    " uninitialized unknown unrecognized unsupported with"
)
"""Before such a noun: a name follows."""

VERBS = _set(
    "already are can can't cannot contains could did didn't do does doesn't exists failed had has"
    " have is isn't may must not refused requires returned should takes violates was were will"
    " would"
)
FUNCTION_WORDS = VERBS | _set(
    "a after an and as at because been before but by for from here if in into it of on or than"
    " that the they this to when where which while with"
)
"""Never a name."""

TYPE_NAMES = _set(
    "False None True array bigint bool boolean bytea bytes date decimal dict double false float"
    " function int integer interval json jsonb jsonpath list money nil none null number numeric"
    " object real record set smallint str string text time timestamp timestamptz timetz true tuple"
    " undefined varchar xml"
)
"""Names of types in Python and SQL. At the beginning they are prose: "integer out of range"."""

ABBREVIATIONS = _set("False None True bool bytearray dict int str tuple")
"""Types and values of Python that are not English words: the program fills them in anywhere."""

TYPE_LEADS = _set(
    "and but expected expects found from given instead not of or passed received return returned"
    " returns to type types"
)
"""Before the name of a type: the program filled it in."""

PREDICATES = _set("a an callable defined iterable recognized subscriptable")
"""After "is not", which follows a name: "orders is not defined"."""

THINGS = _set("instance instances object objects value values")
"""After the name of a type, inside a sentence."""

FOUND_WORDS = _set("found given instead received")
"""After the name of an unexpected type: ", string given"."""

SQL_WORDS = _set(
    "ALTER ANALYZE AND AS ATTACH BEGIN BY CALL CASE CAST CLUSTER COALESCE COLUMN COMMIT"
    " CONCURRENTLY CONSTRAINT COPY CREATE CURSOR CYCLE DATABASE DECLARE DEFAULT DELETE DETACH"
    " DISCARD DISTINCT DO DOMAIN DROP EXCEPT EXECUTE EXPLAIN FETCH FILTER FROM FUNCTION GET GRANT"
    " GROUP HAVING HEAD INDEX INSERT INTERSECT INTO JOIN LIMIT LISTEN LOCK LOCKED MERGE NOTIFY OF"
    " OFFSET ON OPTIONS ORDER PATCH POST PREPARE PREPARED PROCEDURE PUT REFRESH REINDEX RELEASE"
    " RETURNING REVOKE ROLE ROLLBACK SAVEPOINT SCHEMA SEARCH SELECT SEQUENCE SET SHARE SKIP TABLE"
    " TABLESPACE TIES TO TRANSACTION TRIGGER TRUNCATE TYPE UNION UPDATE VACUUM VALUES VIEW WHERE"
    " WINDOW WITH WITHIN"
)
"""Keywords of SQL and methods of HTTP, which programs fill in like names. No constraints."""
