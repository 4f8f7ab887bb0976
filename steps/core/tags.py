"""Keys of the tags that this project writes, each defined here and only here. All of them are
visible in the MLflow UI.
"""

# on a run: how steps find each other's work
STEP = "slm.step"  # name of the step that a run is of
MODEL = "slm.model"  # registered model name the run works for
FINGERPRINT = "slm.fingerprint"
PARTS = "slm.fingerprint.parts"  # JSON: what the fingerprint was made of
OUTPUT = "slm.output"  # URI of what the run made
INPUT = "slm.input."  # + config key: URI that the run read
OVERRIDES = "slm.overrides"
COMMAND = "slm.command"  # repeats the run
GIT_COMMIT = "slm.git_commit"
GIT_DIRTY = "slm.git_dirty"
# of what the report.html beside a report was rendered by
PRESENTATION = "slm.presentation"

# on a LoggedModel and on its registered version
VARIANT = "slm.variant"  # transformers or onnx
DIGEST = "slm.digest"  # of the logged model's files
SNAPSHOT_DIGEST = "slm.snapshot_digest"
SNAPSHOT_REVISION = "slm.snapshot_revision"
LICENCE = "slm.licence"
SOURCE = "slm.source"  # repository or package of the weights
CAPABILITIES = "slm.capabilities"  # what a caller must know, in words

# on a registered version
MODEL_ID = "slm.model_id"  # of the LoggedModel behind it
EVALUATION = "slm.evaluation"  # URI of the report that decided
EVIDENCE_DIGEST = "slm.evidence_digest"  # of that report's bytes
VERDICT = "slm.verdict"
# version and logged model on the server it came from, without that server's address
IMPORTED_FROM = "slm.imported_from"
# who registered the version; "(claimed)" behind a name that no server confirmed
MADE_BY = "slm.made_by"
# whether the version waits for approval, was approved or was rejected, in words
APPROVAL = "slm.approval"
# why a server could not serve the version, or that it serves it again
SERVING = "slm.serving"

# what `monitor` found when a figure left its band or came back, in words; and which figures are out
MONITOR = "slm.monitor"
MONITOR_FIGURES = "slm.monitor.figures"

# on a registered model: creation time of its <name>.history, ms since 1970
HISTORY = "slm.history"

# on a trace of an evaluation, and on its dataset
PACK = "slm.pack"
PACK_DIGEST = "slm.pack_digest"
ITEM = "slm.item"
SKILL = "slm.skill"

# on a trace of a served request, beside MODEL, VARIANT and DIGEST
VERSION = "slm.version"  # number of the registered version
ROLE = "slm.role"  # answered or shadow
ALIAS = "slm.alias"  # that the request went to
PROCESSOR = "slm.processor"  # of the machine that answered
ANSWER = "slm.answer"  # in its metadata: JSON of the figures
