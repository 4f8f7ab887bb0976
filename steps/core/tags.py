"""Names of the tags by which steps find each other's work. Every one is visible in the MLflow
UI.
"""

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

# on a LoggedModel and on its registered version
VARIANT = "slm.variant"  # transformers or onnx
DIGEST = "slm.digest"  # of the logged model's files
SNAPSHOT_DIGEST = "slm.snapshot_digest"
SNAPSHOT_REVISION = "slm.snapshot_revision"
LICENCE = "slm.licence"
CAPABILITIES = "slm.capabilities"  # what a caller must know, in words
