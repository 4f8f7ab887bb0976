"""``mlflow.pyfunc.spark_udf`` over both columns, on two Spark workers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.wrappers.subjects import Logged

PYSPARK = "pyspark==4.3.0"

ANSWERS = """
import json, os, sys
sys.path.insert(0, sys.argv[2])
os.environ |= {"PYSPARK_PYTHON": sys.executable, "PYTHONPATH": sys.argv[2]}
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
import mlflow
from pyspark.sql import SparkSession
from pyspark.sql.functions import struct
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
udf = mlflow.pyfunc.spark_udf(spark, sys.argv[1], result_type="string", env_manager="local")
rows = [(number, f"Say the number {number}.", 4 + number) for number in range(6)]
frame = spark.createDataFrame(rows, ["number", "prompt", "max_tokens"]).repartition(2)
frame = frame.withColumn("answer", udf(struct("prompt", "max_tokens")))
answers = frame.select("number", "answer").collect()
print("ANSWERS " + json.dumps({str(row["number"]): row["answer"] for row in answers}))
spark.stop()
"""

ALONE = """
import json, sys, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = {n: {"prompt": f"Say the number {n}.", "max_tokens": 4 + n} for n in range(6)}
print(json.dumps({str(n): model.predict(row)[0] for n, row in rows.items()}))
"""


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.timeout(900)
def test_spark_workers_answer_as_one_process_does(
    logged: Logged, in_fresh_process: Callable[..., str], tmp_path: Path
) -> None:
    if shutil.which("java") is None:
        pytest.fail("Java is not installed: apt-get install default-jre-headless (.ci/run does it)")
    packages = tmp_path / "pyspark"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            str(packages),
            PYSPARK,
            "py4j",
        ],
        check=True,
    )
    printed = in_fresh_process(ANSWERS, logged.uris["fp32"], str(packages), timeout=600)
    answers = json.loads(printed.split("ANSWERS ", 1)[1])
    assert answers == json.loads(in_fresh_process(ALONE, logged.uris["fp32"]).splitlines()[-1])
    assert len(set(answers.values())) == 6
