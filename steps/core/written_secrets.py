"""Secrets as command lines, YAML, headers and addresses write them, in logs and errors.

Not looked for in answers of models, which are asked for such examples. Each pattern looks at a
bounded length from where it begins, so that a text of many beginnings is read once.
"""

import re

# what follows a name in a sentence, or is no secret
NO_VALUE = (
    r"(?!(?i:true|false|none|null|yes|no|is|are|was|were|must|may|can|cannot|should|will|has|have|not"
    r"|and|or|to|for|from|in|of|on|with|the|a|an|it|required|missing|wrong|invalid|expected|option"
    r"|authentication)(?![^\s,.;:)\]}'\"])|\*\*\*|[~|>&$-](?:\W|$)|\$\{)"
)
QUOTED = r"""'(?:[^'\\\n]|\\.){1,512}'|"(?:[^"\\\n]|\\.){1,512}\""""
NAMES = (
    r"(?:password|passwd|passphrase|pwd|secret|(?:api|access|account|secret|private|encryption"
    r"|subscription)[_-]?key|client[_-]?secret|credentials?"
    r"|(?<![a-z0-9][_-])token|(?:api|access|auth|bearer|refresh|session|hf|hub|id)[_-]?token)"
)
# user:password with blanks, of any URL; not a port in a sentence
WITH_BLANKS = re.compile(
    r"""(?<=://)()[^\s/:@"'<>]{0,128}:(?!\d{1,5}[\s,.;)])"""
    r"""[^\s/@"'<>]{1,128}(?: {1,3}[^\s/@"'<>]{1,128}){1,4}(?=@)"""
)
WRITTEN = (
    WITH_BLANKS,
    # ?api_key=…, &client_secret=…
    re.compile(rf"(?i)([?&;](?:[a-z0-9]{{1,20}}[_.-]){{0,3}}{NAMES}=)[^&;\s\"'<>#]{{4,}}"),
    re.compile(r"""(?i)([?&](?:key|auth|jwt|code|session_?id)=)[^&\s"'<>#]{16,}"""),
    # headers: also of tokens without a digit
    re.compile(
        r"""(?i)(\bauthorization["']?\s{0,3}[:=]\s{0,3}["']?"""
        r"""(?:bearer|token|apikey|negotiate) {1,3})"""
        r"""[^\s"',;*]{6,}"""
    ),
    re.compile(r"(\b[Bb]earer )[A-Za-z0-9._~+/-]{20,}=*"),
    re.compile(
        r"""(?i)(\bx-(?:[a-z]{1,20}-){0,2}(?:key|token|secret|password)["']?\s{0,3}[:=]\s{0,3}["']?)"""
        r"""[^\s"',;*]{6,}"""
    ),
    # --password=…, --db-password …
    re.compile(
        rf"(?i)((?<![\w-])--?(?:[a-z0-9]{{1,20}}[_-]){{0,3}}{NAMES}(?:=|[ \t]{{1,4}}))"
        rf"(?!-){NO_VALUE}(?:{QUOTED}|[^\s'\"]{{1,512}})"
    ),
    re.compile(
        r"""(?i)(\b(?:mysql|mariadb|sshpass)[a-z_-]{0,16}"""
        r"""(?:[ \t]{1,4}(?!-p)[^\s|;&]{1,128}){0,12}?"""
        rf"[ \t]{{1,4}}-p)(?:{QUOTED}|[^\s'\"]{{1,512}})"
    ),
    re.compile(
        r"(?i)(\b(?:sshpass[ \t]{1,4}-p"
        r"|redis-cli(?:[ \t]{1,4}(?!-a)[^\s|;&]{1,128}){0,12}?[ \t]{1,4}-a)"
        rf"[ \t]{{1,4}})(?:{QUOTED}|[^\s'\"]{{1,512}})"
    ),
    re.compile(
        r"(?i)(\bcurl(?:[ \t]{1,4}(?!-u)[^\s|;&]{1,256}){0,12}?[ \t]{1,4}(?:-u|--user)[ \t=]{0,4}"
        r"['\"]?[^\s:'\"]{1,128}:)[^\s'\"]{1,512}"
    ),
    re.compile(
        r"(?i)(\b(?:sqlplus|sqlldr|expdp|impdp)(?:[ \t]{1,4}-[a-z]{1,8}){0,4}[ \t]{1,4}"
        r"['\"]?[^\s/'\"@]{1,128}/)[^\s'\"]{1,512}(?=@)"
    ),
    # PGPASSWORD=…
    re.compile(
        r"(\b[A-Z][A-Z0-9_]{0,40}(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|[A-Z]_?KEY|_PWD)=)"
        rf"{NO_VALUE}(?!\d{{1,8}}\b)(?:{QUOTED}|[^\s'\"]{{4,512}})"
    ),
    # password: … of YAML, "password": "…" of JSON; the last word of a line as well
    re.compile(
        rf"(?im)((?:^[ \t]{{0,64}}(?:- )?|[{{,;(][ \t]{{0,4}})[\"']?"
        rf"(?:[a-z0-9]{{1,20}}[_.-]){{0,3}}{NAMES}"
        rf"[\"']?[ \t]{{0,4}}:[ \t]{{1,4}}){NO_VALUE}"
        rf"(?:{QUOTED}|[^\s,;\"'(){{}}]{{4,512}}(?: [^\s,;\"'(){{}}]{{1,128}}$)?)"
    ),
)


def without_written(text: str) -> str:
    """``text`` with ``***`` for what these forms hold."""
    for pattern in WRITTEN:
        text = pattern.sub(r"\1***", text)
    return text
