"""A Q8_0 GGUF of the weights of another GGUF: the precision that the ONNX variant serves, for the
peers that read GGUF.

python -m benchmarks.q8_gguf SmolLM2-135M-Instruct.Q4_1.gguf SmolLM2-135M-Instruct.Q8_0.gguf
"""

import sys
from pathlib import Path

import gguf
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType

FILE_TYPE = gguf.Keys.General.FILE_TYPE
# the writer writes these itself
OWN_KEYS = (gguf.Keys.General.ARCHITECTURE, FILE_TYPE)


def write_q8(source: Path, target: Path) -> None:
    """Write every quantised tensor of `source` as Q8_0; float32 tensors (the norms), metadata and
    tokenizer stay as they are.
    """
    reader = GGUFReader(source)
    architecture = reader.fields[gguf.Keys.General.ARCHITECTURE].contents()
    writer = GGUFWriter(target, architecture)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    for field in reader.fields.values():
        if field.name in OWN_KEYS or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        of_what = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=of_what)
    q8 = GGMLQuantizationType.Q8_0
    for tensor in reader.tensors:
        data, stored = tensor.data, tensor.tensor_type
        if stored not in (GGMLQuantizationType.F32, q8):
            data, stored = gguf.quants.quantize(gguf.quants.dequantize(data, stored), q8), q8
        writer.add_tensor(tensor.name, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write_q8(Path(sys.argv[1]), Path(sys.argv[2]))
