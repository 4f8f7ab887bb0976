"""Names of the aliases and of the tags that the registry room reads and writes."""

TRANSFORMERS = "transformers"
ONNX = "onnx"
VARIANTS = (TRANSFORMERS, ONNX)
CANDIDATE = "candidate"  # set by a person in the UI; `watch` judges it

VARIANT_TAG = "slm.variant"
FINGERPRINT_TAG = "slm.fingerprint"
SNAPSHOT_TAG = "slm.snapshot_digest"
REVISION_TAG = "slm.snapshot_revision"
LICENCE_TAG = "slm.licence"
CAPABILITIES_TAG = "slm.capabilities"
DIGEST_TAG = "slm.digest"
EVALUATION_TAG = "slm.evaluation"
EVIDENCE_TAG = "slm.evidence_digest"
VERDICT_TAG = "slm.verdict"
MODEL_ID_TAG = "slm.model_id"
# on a registered model: creation time of its <name>.history, ms since 1970
HISTORY_TAG = "slm.history"
# version and logged model on the server it came from, without that server's address
ORIGIN_TAG = "slm.imported_from"
# who registered the version; "(claimed)" behind a name that no server confirmed
MADE_BY_TAG = "slm.made_by"
# whether the version waits for approval, was approved or was rejected, in words
APPROVAL_TAG = "slm.approval"


def previous_of(alias: str) -> str:
    """The alias that keeps what ``alias`` pointed at before: ``previous``, ``previous-edge`` …"""
    return _companion("previous", alias)


def challenger_of(alias: str) -> str:
    """The alias of the runner-up to ``alias``: ``challenger``, ``challenger-edge`` …"""
    return _companion("challenger", alias)


def _companion(word: str, alias: str) -> str:
    if alias == "champion":
        return word
    return f"{word}-{alias.removeprefix('champion-')}"
