"""The laws of state, which every engine keeps."""

from cobra.export.laws.exactness import EXACTNESS
from cobra.export.laws.law import Law
from cobra.export.laws.reading import READING
from cobra.export.laws.remembering import REMEMBERING
from cobra.export.laws.rows import ROWS

LAWS: dict[str, Law] = {law.name: law for law in (*READING, *REMEMBERING, *ROWS, *EXACTNESS)}
