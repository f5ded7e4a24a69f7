"""The MTWV of s3prl's query-by-example lists, by the corpus' own scorer or by its definition.

QUESST 2014 comes with `scoring/score-TWV-Cnxe.sh`, which needs Java. Where it does not run, the
value is computed here from the ground truth: the maximum over thresholds of the mean over queries
of 1 - Pmiss - beta Pfa, with pairs of query and document as trials and -10 for those that the list
lacks. Every result says which of the two it is by.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from tasks.qbe import max_term_weighted_value

SCORER = "score-TWV-Cnxe.sh"
LIST = "benchmark.stdlist.xml"

#: Whose a value is.
BY_CORPUS, BY_US = f"by {SCORER}", "computed here, not by the corpus' scorer"

#: Of a pair that was not scored, such as one in another language.
ABSENT = -10.0


def score(folder: Path, scoring: Path, split: str) -> tuple[float, str]:
    """MTWV in percent of the list in a folder, and whether it is by the corpus' scorer or ours.

    scoring: QUESST's folder of that name. split: dev or eval.
    """
    truth = f"groundtruth_quesst14_{split}"
    if (scoring / SCORER).is_file():
        command = ["bash", SCORER, str(folder.absolute()), truth, str(round(ABSENT))]
        with (folder / "scorer.log").open("w") as log:
            subprocess.run(command, cwd=scoring, stdout=log, stderr=subprocess.STDOUT, check=False)
        found = read_score(folder)
        if found is not None:
            return found, BY_CORPUS
    return compute(folder / LIST, scoring / truth / f"quesst14_{split}.rttm"), BY_US


def read_score(folder: Path) -> float | None:
    """MTWV in percent that the corpus' scorer has left in a folder, None where it has not."""
    for name in ("score.out", "scorer.log"):
        file = folder / name
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        found = re.search(r"maxTWV:\s*(\S+)", text)
        if found:
            return 100 * float(found.group(1))
    return None


def compute(scores: Path, truth: Path) -> float:
    """MTWV in percent. scores: s3prl's list. truth: an RTTM file, `LEXEME document ... query`."""
    given = {
        (terms.get("termid", ""), term.get("file", "")): float(term.get("score", ABSENT))
        for terms in ElementTree.parse(scores).getroot()
        for term in terms
    }
    lines = [line.split() for line in truth.read_text(encoding="utf-8").splitlines()]
    true = {(fields[5], fields[1]) for fields in lines if fields and fields[0] == "LEXEME"}
    queries = sorted({query for query, _ in true})
    documents = sorted({document for _, document in true} | {document for _, document in given})
    pairs = [[(query, document) for document in documents] for query in queries]
    matrix = np.array([[given.get(pair, ABSENT) for pair in row] for row in pairs])
    holds = np.array([[pair in true for pair in row] for row in pairs])
    return 100 * max_term_weighted_value(matrix, holds)
