"""Checks the launch files of `submit` against the published schemas.

    test_launch_files.py BINARY RECIPE [MPIJOB_CRD]

Objects of Kubernetes are checked by kubernetes-validate (the OpenAPI schemas of a release, strict:
no unknown field), those of Kubeflow Trainer by the models of kubeflow-trainer-api, and tasks of
SkyPilot by its own JSON schemas. For an MPIJob no package has the schema. Its pods are checked as
those of Kubernetes, its other fields against the list below, and all of it against the custom
resource definition, if its file is given (`manifests/base/kubeflow.org_mpijobs.yaml` of the MPI
Operator).
"""

import itertools
import subprocess
import sys

import jsonschema
import kubernetes_validate
import yaml
from kubeflow_trainer_api import models
from sky.utils import schemas

binary, recipe, *definition = sys.argv[1:]
release = "1.37"
sizes = [["--nodes", "4", "--tasks", "8", "--gpus", "8", "--memory", "64"], []]
container = ["--image", "registry.example/docre:1", "--set", "seed=3"]


def fields(required=(), **properties):
    """An object with no other fields than these."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


count, text = {"type": "integer", "minimum": 0}, {"type": "string"}
replicas = fields(
    required=["replicas", "template"],
    replicas=count,
    restartPolicy={"enum": ["Never", "OnFailure", "Always", "ExitCode"]},
    template={"type": "object"},
)
# What v2beta1 of the MPI Operator knows of the fields that `submit` writes.
mpi_job = fields(
    required=["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "kubeflow.org/v2beta1"},
    kind={"const": "MPIJob"},
    metadata=fields(required=["name"], name=text),
    spec=fields(
        required=["mpiReplicaSpecs"],
        slotsPerWorker=count,
        mpiImplementation={"enum": ["OpenMPI", "Intel", "MPICH"]},
        sshAuthMountPath=text,
        runPolicy=fields(cleanPodPolicy={"enum": ["All", "Running", "None"]}, backoffLimit=count),
        mpiReplicaSpecs=fields(required=["Launcher", "Worker"], Launcher=replicas, Worker=replicas),
    ),
)


def submitted(*flags):
    """The objects of a launch file."""
    command = [binary, "submit", recipe, "--dry-run", *flags]
    return list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def check_kubernetes(value):
    kubernetes_validate.validate(value, release, strict=True)


def check_pod(template):
    """A template of pods, as a pod."""
    check_kubernetes({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template})


def check_trainer(value):
    """The models pass over unknown fields: what they write must be what they have read."""
    kind = {"TrainJob": models.TrainerV1alpha1TrainJob, "TrainingRuntime": models.TrainerV1alpha1TrainingRuntime}
    model = kind[value["kind"]].from_dict(value)
    assert model.to_dict() == value, (model.to_dict(), value)
    if value["kind"] == "TrainingRuntime":
        for job in value["spec"]["template"]["spec"]["replicatedJobs"]:
            spec = job["template"]["spec"]
            check_kubernetes({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": spec})


def check_mpi_job(value):
    jsonschema.validate(value, mpi_job)
    for replicas in value["spec"]["mpiReplicaSpecs"].values():
        template = replicas["template"]
        check_pod({"spec": {**template["spec"], "restartPolicy": replicas["restartPolicy"]}})
    if definition:
        with open(definition[0]) as file:
            versions = yaml.safe_load(file)["spec"]["versions"]
        schema = next(each for each in versions if each["name"] == "v2beta1")["schema"]["openAPIV3Schema"]
        jsonschema.validate(value, closed(schema))


def closed(schema):
    """A schema in which unknown fields are errors, as the server takes them for."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(each) for key, each in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    return schema


def check_task(task):
    jsonschema.validate(task, schemas.get_task_schema())
    jsonschema.validate(task["resources"], schemas.get_resources_schema())
    for source in task["file_mounts"].values():
        if not isinstance(source, str):
            jsonschema.validate(source, schemas.get_storage_schema())


checked = 0
for template, size in itertools.product(["indexed-job", "train-job", "mpi-job"], sizes):
    for value in submitted("--to", "kubernetes", "--template", template, "--volume", "claim", *container, *size):
        group = value["apiVersion"].split("/")[0]
        check = {"trainer.kubeflow.org": check_trainer, "kubeflow.org": check_mpi_job}.get(group, check_kubernetes)
        check(value)
        checked += 1
for size, volume in itertools.product(sizes, [[], ["--volume", "shared"], ["--volume", "s3://bucket/data"]]):
    accelerator = ["--accelerator", "H200"] if size else []
    [task] = submitted("--to", "sky", *container, *size, *volume, *accelerator)
    check_task(task)
    checked += 1

# The checks can fail.
job = submitted("--to", "kubernetes", "--volume", "claim", *container)[-1]
for spoil in [
    lambda: job["spec"].__setitem__("completionmode", "Indexed"),
    lambda: job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"].__setitem__("values", ["75"]),
]:
    spoil()
    try:
        check_kubernetes(job)
    except Exception:
        continue
    raise SystemExit("a spoilt job was not noticed")
print(f"launch files: {checked} objects and tasks are valid")
