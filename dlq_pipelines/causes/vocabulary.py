"""Lists the words that announce a code to keep, or a value to hide.

The sets are English and technical, and hold no library's messages. A missing word may split a
cause; a word too many hides a word that could have stayed.
"""

from http import HTTPStatus


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _list(words: str) -> tuple[str, ...]:
    return tuple(words.split())


CODE_WORDS = _set(
    "code err errno error errorcode exit exitcode exited hresult http https rc returncode"
    " signal sqlcode sqlstate status statuscode winerror"
)
"""Before a number or a token with digits: the token is a code, not a count."""

CODE_LEADS = _set(
    "and api completion error exit exited failure fault got http native non-zero nonzero reason"
    " received reply response result return returned server sql status unexpected vendor with"
)
"""Before "code": it announces a code, unlike in "postal code"."""

STATUS_LEADS = CODE_WORDS | _set(
    "a again an and answer answered answers api backend because client endpoint err errors fail"
    " failed failing fails failure gateway gave gives got http httpstatus non-200 non-2xx of"
    " proxy raised receive received receives replied reply request responded responds response"
    " return returned returning returns said says see sees sent server service still threw"
    " throws unexpected unsuccessful upstream was webhook with"
)
"""Before a number between 400 and 599: the number is an HTTP status."""

NUMBER_NOUNS = _set(
    "amount article at batch between bill capacity character column count customer expected id"
    " index invoice item length limit line list lot max maximum min minimum no number offset"
    " order page parcel part pid port position postcode price product qty quantity range row"
    " size step ticket total user value version weight zip"
)
"""Before such a number with a colon, a bracket or a comma: it is a value."""

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
    "account aggregate argument attribute backend branch bucket called caller carrier cast"
    " channel city class collation collector column columns command configuration connector"
    " constant constraint consumer container conversion country courier currency cursor customer"
    " database depot dialect dictionary directory domain driver dtype encoding entity event"
    " exchange extension family field file function group handler host image index job key"
    " keyspace language level library mapping method model module name named namespace node"
    " object operator option order package parameter parameters parser partition plugin pod"
    " policy portal procedure product project property provider publication queue region"
    " relation repository role routine rule savepoint schema sequence server service shop"
    " statement station statistics store stream subscription supplier table tables tablespace"
    " task template tenant tipo topic trigger typ type types user variable view views warehouse"
    " worker workspace wrapper"
)
"""Nouns before a name: "for table orders", "unknown topic orders"."""

NAME_LEADS = _set(
    "ambiguous by drop duplicate find for from in invalid missing no of on resolve such the to"
    " undefined uninitialized unknown unrecognized unsupported with"
)
"""Before such a noun: a name follows."""

VERBS = _set(
    "already are can can't cannot contains could did didn't do does doesn't exists failed had"
    " has have is isn't may must not refused requires returned should takes violates was were"
    " will would"
)
FUNCTION_WORDS = VERBS | _set(
    "a after an and as at because been before but by for from here if in into it matching of on"
    " or than"
    " that the they this to when where which while with"
)
"""Never a name."""

TYPE_NAMES = _set(
    "False None True array bigint bool boolean bytea bytes date decimal dict double false float"
    " function int integer interval json jsonb jsonpath list money nil none null number numeric"
    " object real record set smallint str string text time timestamp timestamptz timetz true"
    " tuple undefined varchar xml"
)
"""Names of types in Python and SQL. At the beginning they are prose: "integer out of range"."""

ABBREVIATIONS = _set("False None True bool bytearray dict int str tuple")
"""Types and values of Python that are not English words: the program fills them in anywhere."""

TYPE_LEADS = _set(
    "and but expected expects found from given instead not of or passed received return"
    " returned returns to type types"
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
    " DISCARD DISTINCT DO DOMAIN DROP EXCEPT EXECUTE EXPLAIN FETCH FILTER FROM FUNCTION GET"
    " GRANT GROUP HAVING HEAD INDEX INSERT INTERSECT INTO JOIN LIMIT LISTEN LOCK LOCKED MERGE"
    " NOTIFY OF OFFSET ON OPTIONS ORDER PATCH POST PREPARE PREPARED PROCEDURE PUT REFRESH"
    " REINDEX RELEASE RETURNING REVOKE ROLE ROLLBACK SAVEPOINT SCHEMA SEARCH SELECT SEQUENCE SET"
    " SHARE SKIP TABLE TABLESPACE TIES TO TRANSACTION TRIGGER TRUNCATE TYPE UNION UPDATE VACUUM"
    " VALUES VIEW WHERE WINDOW WITH WITHIN"
)
"""Keywords of SQL and methods of HTTP, which programs fill in like names. No constraints."""

BODY_CODE_KEYS = _list(
    "status statuscode httpstatus httpstatuscode httpcode type exception error errortype"
    " exceptiontype code errorcode errcode errno faultcode declinecode subcode errorsubcode"
    " reasoncode"
)
"""Keys of a body whose value is a code, in the order in which they are shown."""

BODY_SENTENCE_KEYS = _list(
    "title message msg errormessage errormsg err errors detail details description"
    " errordescription errordetail reason faultstring text str cause"
)
"""Keys of a body whose value is a sentence, in the order in which they are shown."""

BODY_KEYS = frozenset(BODY_CODE_KEYS) | frozenset(BODY_SENTENCE_KEYS)

BODY_STRONG_KEYS = _set(
    "cause code declinecode detail details err errcode errno error errorcode errordescription"
    " errordetail errormessage errormsg errors errortype exception faultcode faultstring message"
    " msg reason"
)
"""A body with such a key states a failure; one without is data, unless it has a status."""

BODY_NAME_KEYS = _set(
    "attribute bucket column constraint field fields index param parameter pointer property"
    " queue table topic"
)
"""Keys of a body whose value names what failed."""

HOST_LEADS = _set("lookup enotfound eai_again getaddrinfo resolve")
"""Before the name of a host without a dot: "getaddrinfo ENOTFOUND kafka"."""

MONTHS = _set(
    "Apr April Aug August Dec December Feb February Jan January Jul July Jun June Mar March May"
    " Nov November Oct October Sep Sept September"
)
WEEKDAYS = _set(
    "Fri Friday Mon Monday Sat Saturday Sun Sunday Thu Thur Thurs Thursday Tue Tues Tuesday Wed"
    " Wednesday"
)

CURRENCIES = _set(
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTC"
    " BTN BWP BYN BZD CAD CDF CHF CLF CLP CNH CNY COP CRC CUC CUP CVE CZK DJF DKK DOP DZD EGP"
    " ERN ETB ETH EUR FJD FKP GBP GEL GGP GHS GIP GMD GNF GTQ GYD HKD HNL HRK HTG HUF IDR ILS"
    " IMP INR IQD IRR ISK JEP JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD"
    " LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD"
    " OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SLL"
    " SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD USDT UYU UZS"
    " VES VND VUV WST XAF XAG XAU XCD XDR XOF XPD XPF XPT YER ZAR ZMW ZWL"
)
"""Codes of currencies; `ALL`, `TOP` and `TRY` are words of SQL and of English too."""

UNITS = _set(
    "bits byte byte(s) bytes day day(s) days gb gib h hour hour(s) hours kb kib mb mib"
    " microseconds millis millisecond milliseconds min mins minute minute(s) minutes month"
    " months ms msec msecs percent s sec second second(s) seconds secs week weeks year years µs"
)
"""After a number: the unit belongs to the value."""

PERSONS = _set(
    "account agent assignee author beneficiary benutzer buyer cardholder client customer"
    " debtor driver employee holder konto kunde login manager nutzer owner passenger patient payee"
    " payer person principal recipient sender uid user users usuario utente utilisateur"
)
"""Before the name of a person, which is never a detail."""

PERSON_LEADS = PERSONS | _set("by contact courier for from member mr mrs ms to with")
"""Before two or more capitalised words, which are the name of a person or of a company."""

NAMED_PERSONS = PERSONS - _set(
    "account agent client holder konto login manager principal uid users usuario"
)
"""Before a name in lower case; the others are programs or accounts as often as persons."""

PERSON_VERBS = VERBS | _set("est has ist hat wurde war kann nicht lives moved rejected")
"""After the name of a person in lower case."""

TAKEN_VERBS = _set(
    "approved assigned booked changed claimed created edited held locked modified opened ordered"
    " owned placed reported requested reserved signed submitted updated uploaded used"
)
"""Before "by" and the name of a person, also in lower case."""

PERSON_ATTRIBUTES = _set(
    "about again against agreement already api app approval archive backend balance base birth"
    " billing both business card cart certificate chain check cloud company consent contact"
    " contract credential credentials credit currently custom daily data day debit default"
    " delivery device dialog directory discount during email engine feed file filter first follow"
    " gender general global group guest handshake health hello history home identity image import"
    " info input internal invite last late legal less license link load local locale location log"
    " lookup loyalty mail main manually master member membership mobile more move network new note"
    " old online only open other out own pair password payment permission phone picture plan plus"
    " pool portal postal preference preferences primary private process profile program proxy"
    " public quota rank rate record redirect reference refresh request response review risk root"
    " route rule salary sales same score screen script search second secret session settings shift"
    " shipping short sign signature single site source space staff stage state status still stock"
    " storage street style support sync system tag task tax team temporarily temporary ticket tier"
    " time title tls today token tool total tour trial trust two under until update upload vehicle"
    " verification via view voucher wallet web without work zone"
)
"""After a word for a person: no name, as in "customer billing address is missing"."""

VALUE_KEYS = _set(
    "address carrier city client comment company contact country customer driver email input"
    " name note owner phone place product recipient sender street supplier title user value"
    " vendor"
)
"""Before a colon or an equals sign: the words that follow are a value."""

COUNTED_NOUNS = _set(
    "attempt attempts byte bytes characters chars columns days events fields gb gib hours items"
    " iterations jobs kb kib lines mb messages mib minutes ms orders pages parcels parts percent"
    " pieces points records requests results retries rows sec seconds secs steps times tokens"
    " tries units users values words"
)
"""After a number between 400 and 599: it is a count, not a status."""

NOISE_NAMES = _set(
    "access connection data element entries entry error errors false format gen_server gen_statem"
    " genserver.call id item key level lock name names nil none null object pool port rate record"
    " request response result row string that the this transaction true undefined unknown"
    " value values"
)
"""Never a name of what failed."""

NAMED_KINDS = _set(
    "argument arguments attribute bucket channel class collection column columns component"
    " config constraint container database dependency enotfound exchange field fields file"
    " function getaddrinfo header host hostname index job key keys lookup member method missing"
    " module named namespace node operation option parameter parameters partition permission pod"
    " policy property queue reading relation resource role routing schema scope secret sequence"
    " server service setting settings stream subscription table task template topic topics type"
    " user variable variables vhost view"
)
"""Nouns before a name or before its colon: the detail of a cause."""

COUNTRY_LEADS = _set("country currency for from in land locale location of pair rate region to")
"""Before two capitals, which are a country; before `ALL` or `TRY`, which are currencies then."""

NO_COUNTRIES = _set(
    "AI API CI CPU DB DNS EC HR HTTP ID IO IP IT JS OK OS PC PG QA S3 TS UI UX VM XML"
)
"""Two capitals after such a word that are no country."""

TITLE_WORDS = _set(
    "Access Already Bad Broken Busy Cannot Client Closed Connection Does Empty Gateway I"
    " Internal Is Length Locked Method No None Not Out Payload Peer Please Precondition Proxy"
    " Reset Security Segmentation Server Service Temporarily This Too Try Unable Upgrade Use"
    " Your"
)
"""Capitalised words that state something and are no names."""

ARTICLES = _set("a an any each every no that the this your")
"""Before a compound noun, which is no name: "the server certificate has expired"."""

FIELD_ADJECTIVES = (
    FUNCTION_WORDS
    | NAME_LEADS
    | _set(
        "each every first key last mandatory missing nullable one optional primary required same"
        " some such this"
    )
)
"""Before "field": it is not named. Other words are names: "denied for orders field"."""
