"""From a trained net to a file that predicts without segpets, and the gate that it must pass.

ONNX and ONNX Runtime are an extra; they are imported where they are used.
"""

from segpets.exporting.description import describe as describe
from segpets.exporting.gate import Checked as Checked
from segpets.exporting.gate import check as check
from segpets.exporting.gate import complaints as complaints
from segpets.exporting.gate import padded as padded
from segpets.exporting.int8 import to_int8 as to_int8
from segpets.exporting.latency import latencies as latencies
from segpets.exporting.onnx_file import OnnxModel as OnnxModel
from segpets.exporting.onnx_file import need_onnx as need_onnx
from segpets.exporting.onnx_file import opset_of as opset_of
from segpets.exporting.onnx_file import to_onnx as to_onnx
from segpets.exporting.program import ProgramModel as ProgramModel
from segpets.exporting.program import to_program as to_program
