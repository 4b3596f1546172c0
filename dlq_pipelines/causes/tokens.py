"""Defines the patterns that split a message into tokens and classify them.

Every pattern takes linear time: quantifiers are possessive or bounded, and a repetition inside
another one excludes the character that ends it.
"""

import re

from dlq_pipelines.causes.vocabulary import VENDOR_CODES

# Characters for private use mark what the reader has decided, from text to key:
# a code that stays; a code that only people read; a word that people read and that counts as a
# placeholder; a unit, which belongs to the number before it; a space inside the name of a
# file.
KEPT_START, KEPT_END = chr(0xE000), chr(0xE001)
ASIDE_START, ASIDE_END = chr(0xE002), chr(0xE003)
WORD_START, WORD_END = chr(0xE004), chr(0xE005)
UNIT_START, UNIT_END = chr(0xE006), chr(0xE007)
FILE_SPACE = chr(0xE008)
MARKS = re.compile(f"[{KEPT_START}-{FILE_SPACE}]")

# A plain word ends before a space, a closing mark or the end. "a.b", "a_b", "a1" and "a=b" are not
# plain words.
_END = r"(?=[,;)\]}[]|['\"](?!\w)|\ (?!=\ )|[.:!?…]++(?:\ |\Z)|\Z)"
_WORD = rf"(?![bru]['\"])[A-Za-z][a-z]*+(?:['\u2019-][A-Z]?+[a-z]++)*+(?:\(e?s\))?+{_END}"
# A lookbehind has a fixed width in Python, so each suffix of an exception has its own.
_RAISED = "|".join(
    f"(?<={name})"
    for name in ("Error", "Exception", "Warning", "Failure", "Fault", "Timeout", "nected")
)

# The tokens of a message. The first alternative that matches wins, so a token precedes those that
# it may contain. The three most frequent ones come first: no other token begins as they do.
TOKEN = re.compile(
    rf"""\ ?+(?:
    (?P<prose>{_WORD}(?:\ {_WORD})*+)
  | (?P<number>[-+]?[0-9]++(?:,[0-9]++)*+(?:\.[0-9]++)?+(?=[ ,;)\]}}]|:?\ |\.?\Z))
  | (?P<stop>[,;)\]}}]++|[.:](?=\ |\Z))
  | (?P<capitals>[A-Z][A-Z_]++{_END}(?:\ (?:[A-Z_]{{2,}}+{_END}|\.\.\.?))*+)
  | (?P<url>(?:[A-Za-z][A-Za-z0-9+.-]{{0,30}}+:){{1,3}}+//[^\s'"<>)\]}}]*+)
  # NewConnectionError('..., ConnectionResetError(104, '...: the quoted words are a message.
  | (?P<raised>[A-Za-z_][\w.]*+(?:{_RAISED})\((?:-?\d{{1,5}},\ ?)?+b?(?:'|"|(?=[A-Z\[<])))
  # The arguments of an exception that has no text: (1062, "..., ('Connection aborted.', ...
  | (?P<arguments>\(-?\d{{1,5}},\ ?b?['"]|\A[(\[]b?['"](?=\w+\ ))
  | (?P<key>[A-Za-z_][\w.-]*+\ ?=\ ?(?=[^\s=])
      |(?:(?<=[{{,])|(?<=[{{,]\ ))['"][A-Za-z_][\w.-]*+['"]\ ?:\ ?)
  # An opening quote follows no letter and no end of a sentence, so "can't" opens none. A closing
  # quote precedes no letter.
  | (?P<quoted>(?<![A-Za-z0-9_])(?<![a-z][.!?])[bru]?(?:
        # A list in repr() and JSON contain quotes of the same kind.
        '\[[^\]]*+\]' | "\[?\{{"(?:[^}}]|\}}(?!\]?"))*+\}}\]?"
        | '(?:[^'\\]|\\.|'(?=\w))*+' | "(?:[^"\\]|\\.)*+(?:"|\Z) | `[^`']*+['`]
        | [\u201c\u201e\u00ab\u2018][^\u201c\u201d\u00bb\u2018\u2019]*+[\u201d\u201c\u00bb\u2019]
      )(?![A-Za-z0-9_]))
  | (?P<symbol>[-+*/%<>=!&|^~@]{{1,3}}+(?=:?+(?:\ |\Z)))
  # The qualified name of a function in Python: "ship.<locals>.<lambda>()".
  | (?P<call>\.?(?:[A-Za-z_$][\w.$\#]*+|<(?:locals|lambda|genexpr|(?:list|dict|set)comp)>\.?)++
      \((?:[^()]++|\([^()]*+\))*+\))
  | (?P<object><[A-Za-z_/!?](?:[^<>]++|<[^<>]*+>)*+>|\#<[^<>]*+>)
  | (?P<kept>{KEPT_START}[^{KEPT_END}]{{1,99}}+{KEPT_END}?)
  | (?P<aside>{ASIDE_START}[^{ASIDE_END}]{{1,99}}+{ASIDE_END}(?::?\ )?)
  | (?P<chunk>(?![.:!?…]++(?:\ |\Z))[^\s'"`“”«»„(),;<>\[\]{{}}=]++)
  | (?P<mark>[^\w\s])
    )""",
    re.VERBOSE,
)

EXTENSIONS = (
    "avro|bash|c|clj|conf|cpp|cs|csv|cxx|dart|docx?|eml|erl|exs?|fs|gif|go|groovy|gz|h|hpp|hs|html?"
    "|ini|java|jl|jpe?g|json|[cm]?jsx?|kts?|log|lua|parquet|pdf|pem|php|pm|png|pptx?|proto|ps1|py|rb"
    "|rs|scala|sh|so|sql|svg|swift|tar|tgz|tiff?|toml|tsv|tsx?|txt|vb|xlsx?|xml|ya?ml|zip"
)
# The kinds of a token without spaces, quotes and brackets. The group's name is its placeholder.
SHAPE = re.compile(
    rf"""
    (?P<number>[-+~*]?[0-9]++(?:[,_][0-9]++)*+(?:\.[0-9]*+)?+(?:[eE][-+]?[0-9]++)?+%?)
  | (?P<quantity>-?(?:
      [0-9]++(?:\.[0-9]++)?+(?:ns|us|µs|ms|min|[smhdw]|[kKMGTP]?i?[bB]|[KMGTP]i|[kKMGT])/?)++s?)
  | (?P<time>[0-9]{{4}}[-/][0-9]{{2}}[-/][0-9]{{2}}(?:[T_][0-9:.,]++)?+(?:Z|[-+][0-9:]++)?+
      |[0-9]{{1,2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:[.,][0-9]++)?+)?+(?:Z|[-+][0-9:]++)?+)
  | (?P<uuid>[0-9a-fA-F]{{8}}-(?:[0-9a-fA-F]{{4}}-){{3}}[0-9a-fA-F]{{12}})
  | (?P<url>[A-Za-z][\w+.-]*+://.*+)
  | (?P<email>[\w.+-]++@[\w.-]++)
  | (?P<ip>(?:ipv[46]:)?(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}(?:[:/][0-9]++)?+
      |(?=[0-9a-fA-F]*+:[0-9a-fA-F]*+:)[0-9a-fA-F:]{{3,45}}+(?:[/%]\w++)?+)
  | (?P<version>v?[0-9]++(?:\.[0-9][\w+-]*+){{1,4}}+)
  | (?P<address>0x[0-9a-fA-F]++)
  | (?P<hash>(?=[a-fA-F]*+[0-9])[0-9a-fA-F]{{8,128}})
  | (?P<vendor>(?:{"|".join(sorted(VENDOR_CODES))})-?[0-9]{{3,6}}[A-Z]?)
  | (?P<word>[A-Za-z]++(?:[/-][A-Za-z]++)++)
  | (?P<call>[A-Z][\w.]*+\.[a-z_]\w*+[!?]?/[0-9]{{1,2}})
  | (?P<path>(?:~|\.{{1,2}})?/.*+|[A-Za-z]:\\.*+|[\w.@+-]++/.*+
      |[\w{FILE_SPACE}()-]++(?:\.[\w{FILE_SPACE}-]++)*?\.(?:{EXTENSIONS})(?::[0-9:]++)?+)
  | (?P<host>[A-Za-z_][\w-]*+(?:\.[\w-]++)*+:[0-9]{{1,5}}|localhost)
  | (?P<enum>[A-Z]\w*?[a-z]\w*+\.[A-Z][A-Z_]++)
  | (?P<dunder>__[a-z]++(?:_[a-z]++)*+__)
  | (?P<name>[@$\#]?[A-Za-z_$][\w$.:@\#/\\-]*+|[0-9]\w++(?:[-.:/]\w++)*+)
  | (?P<symbol>[!-/:-@\[-`{{-~]++)
    """,
    re.VERBOSE | re.ASCII,
)
# An identifier that contains such a word names a failure: AccessDenied, insufficient_funds. The
# search is in lower case.
FAILURE = re.compile(
    "abort|cancel|conflict|declined|denied|duplicate|error|exception|exceed|exhausted|expired|fail"
    "|forbidden|found|insufficient|invalid|limit|missing|no_?such|refused|required|throttl"
    "|timed_?out|timeout|unauthori|unavailable|unknown|unsupported|violat"
    r"|\b(?:busy|closed|corrupt(?:ed)?|dead|disabled|down|empty|full|killed|locked|lost|reset"
    r"|stopped)\b"
)
# Digits next to letters of a script without spaces: "订单12345".
DIGITS = re.compile(r"[A-Za-z_]*+[-+]?[0-9][0-9A-Za-z_.,]*+(?:-[0-9A-Za-z_]++)*+")
CODE = re.compile(r"-?(?:0x[0-9A-Fa-f]{1,8}|[A-Z]{0,4}[0-9][0-9A-Z.]{0,11})")
PLAIN_STATUS = re.compile(r"[1-5][0-9]{2}(?: (?P<word>[A-Z][\w-]*+).*+)?")
# <Response [404]>, <StatusCode.NOT_FOUND: (5, 'not found')>, Response(status=503),
# <Future at 0x7f raised Timeout>, unacceptableStatusCode(code: 503)
CODE_IN_REPR = re.compile(
    r"\[[1-5][0-9]{2}\]|\b\w*?(?:Code|Status|Signals|State|Reason|Err\w*)\.[A-Z][A-Z_]++\b|\b(?:status|status_code|code|errno)=\w++"
    r"|\b[cC]ode: [1-5][0-9]{2}\b|\bstatus(?:Code)?: [1-5][0-9]{2}\b"
    r"|(?<=raised )\w++"
    r"|\bE(?:A(?:CCES|DDR|GAIN|LREADY)|BADF|BUSY|CONN|EXIST|HOST|INTR|INVAL|IO|ISCONN|ISDIR|MFILE"
    r"|MSGSIZE|NET|NFILE|NO[A-Z]|PERM|PIPE|PROTO|ROFS|TIMEDOUT|WOULDBLOCK)[A-Z]*\b"
)
COMPLAINT = re.compile(
    r"(?i)\b(?:already|ambiguous|bad|constraint failed|duplicated?|expected|illegal|invalid"
    r"|malformed|missing|no such|not|pars(?:e|ing)|repeated"
    r"|un(?:defined|expected|handled|known|recognized|supported))\b"
)

# SQL types of several words, whose first word is already hidden.
LONG_TYPE = re.compile(
    rf"(?:<(?:name|type|word)>|{WORD_START}\w+{WORD_END})"
    r"(?: (?:with(?:out)? time zone|precision|varying)\b)++"
)
# The name of a syntactic construct, which a compiler fills in like the name of a type.
CONSTRUCT = re.compile(
    r"\b(assign to|delete|expressions? with)"
    rf" (?:(?:[a-z-]++|<[a-z]++>|{WORD_START}\w+{WORD_END}) )?"
    r"(?:None|True|False|list|tuple|attribute|call|comparison|comprehension|display|ellipsis?"
    rf"|expression|literal|<name>|subscript|{WORD_START}\w+{WORD_END})(?!\w)"
)
PLACEHOLDER = re.compile(f"<[a-z]+>|{WORD_START}[^{WORD_END}]*+{WORD_END}")
UNIT = re.compile(f" ?{UNIT_START}[^{UNIT_END}]*+{UNIT_END}")
# A row of placeholders counts as one: the length of a list and the depth of a structure are values
# too. One set of characters begins every row, which lets the search skip the text in between.
_OPEN, _CLOSED = r"[\[{(\"]*+", r"(?:\[\])*+[\]})\"]*+"
_SEPARATOR = r"(?:,?\ (?:and|or)|\ ?[,=;]|\.\.)?+\ ?"
ROW = re.compile(
    r"[\[{(\"<](?:"
    rf"(?:(?<=<)>|(?<!<){_OPEN}<>){_CLOSED}(?:{_SEPARATOR}{_OPEN}<>{_CLOSED})++"
    r"|(?<=[\[{])[\[{]*+(?:<>)?[\]}]++|(?<=<)>(?:\[\])++)"
)
# The counts of a call's arguments: "exactly 2 positional arguments", "at least 1 argument".
ARITY = re.compile(
    r"(?:at (?:least|most)|exactly|from <> to) (?=<> (?:[a-z-]+ )?argument)"
    r"|(?<![\w-])(?:positional(?:-only)?|keyword-only) (?=argument)"
    r"|(?<=but <>) (?:positional )?arguments? \(and <> [a-z-]+ arguments?\)"
    r"|\A\w+(?= expected (?:at (?:least|most) )?<> argument)"
)
# What depends on a number: "rows", "row(s)", "entries".
PLURAL = re.compile(r"(?<=[a-z][a-z])(?:ies|s|\(e?s\))(?!\w)")
