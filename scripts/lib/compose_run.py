"""Starts the services of a compose file with podman, as the file says, each when what it depends on is there.

    compose_run.py FILE PROJECT up|down [SERVICE...]

Reads what our two files use: image, container_name, hostname, command, environment, ports, volumes, secrets, networks,
read_only, cap_drop, security_opt, healthcheck, depends_on. Anything else in a service ends it: a key that is passed over
would be a key that is not checked. Services of a profile are left out. For scripts/container_check.
"""

import json
import pathlib
import subprocess
import sys
import time

from ruamel.yaml import YAML

KNOWN = {
    "image", "build", "container_name", "hostname", "command", "environment", "ports", "volumes", "secrets", "networks",
    "read_only", "cap_drop", "security_opt", "healthcheck", "depends_on", "restart", "stop_grace_period", "profiles",
}
PATIENCE = 180


def podman(*arguments, check=True):
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True)
    if check and done.returncode != 0:
        raise SystemExit(f"podman {' '.join(arguments)}: {done.stderr.strip()}")
    return done


def seconds(text):
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


class Project:
    def __init__(self, file, name):
        self.folder = pathlib.Path(file).resolve().parent
        self.name = name
        self.compose = YAML(typ="safe").load(pathlib.Path(file))
        self.services = {
            name: service for name, service in self.compose["services"].items() if not service.get("profiles")
        }
        for name, service in self.services.items():
            unknown = set(service) - KNOWN
            if unknown:
                raise SystemExit(f"{name}: {', '.join(sorted(unknown))} cannot be checked here")

    def container(self, service):
        return self.services[service].get("container_name", f"{self.name}-{service}-1")

    def network(self, name):
        return f"{self.name}_{name}"

    def run(self, name):
        service = self.services[name]
        arguments = ["run", "--detach", "--name", self.container(name)]
        networks = service.get("networks", ["default"])
        for network in networks:
            arguments += ["--network", self.network(network), "--network-alias", name]
        if "hostname" in service:
            arguments += ["--hostname", service["hostname"]]
        for key, value in service.get("environment", {}).items():
            arguments += ["--env", f"{key}={value}".replace("$$", "$")]
        for port in service.get("ports", []):
            arguments += ["--publish", port]
        for volume in service.get("volumes", []):
            source, rest = volume.split(":", 1)
            if source.startswith("."):
                source = str(self.folder / source)
            else:
                source = self.compose["volumes"][source]["name"]
            arguments += ["--volume", f"{source}:{rest}"]
        for secret in service.get("secrets", []):
            file = self.folder / self.compose["secrets"][secret]["file"]
            arguments += ["--volume", f"{file}:/run/secrets/{secret}:ro"]
        if service.get("read_only"):
            # Compose gives no writable place beside the volumes; podman would, in /tmp and elsewhere.
            arguments += ["--read-only", "--read-only-tmpfs=false"]
        for capability in service.get("cap_drop", []):
            arguments += ["--cap-drop", capability]
        for option in service.get("security_opt", []):
            arguments += ["--security-opt", option.replace(":true", "")]
        command = service.get("command", [])
        podman(*arguments, service["image"], *[word.replace("$$", "$") for word in command])

    def state(self, name):
        return json.loads(podman("inspect", self.container(name)).stdout)[0]["State"]

    def is_healthy(self, name):
        check = self.services[name].get("healthcheck", {}).get("test")
        if check is None:
            return podman("healthcheck", "run", self.container(name), check=False).returncode == 0
        words = [word.replace("$$", "$") for word in check[1:]]
        words = words if check[0] == "CMD" else ["sh", "-c", *words]
        return podman("exec", self.container(name), *words, check=False).returncode == 0

    def holds(self, name, condition):
        state = self.state(name)
        if condition == "service_completed_successfully":
            if state["Status"] == "exited" and state["ExitCode"] != 0:
                self.fail(name, f"ended with {state['ExitCode']}")
            return state["Status"] == "exited"
        if state["Status"] == "exited":
            self.fail(name, f"ended with {state['ExitCode']}")
        return condition == "service_started" or self.is_healthy(name)

    def fail(self, name, what):
        logs = podman("logs", "--tail", "60", self.container(name), check=False)
        raise SystemExit(f"{logs.stdout}{logs.stderr}{name}: {what}")

    def wait(self, name, condition):
        begun = time.monotonic()
        while not self.holds(name, condition):
            if time.monotonic() - begun > PATIENCE:
                self.fail(name, f"not {condition} within {PATIENCE} s")
            time.sleep(0.5)
        print(f"    {name}: {condition} after {time.monotonic() - begun:.1f} s", flush=True)

    def up(self, wanted):
        networks = self.compose.get("networks", {"default": None})
        for network in networks:
            podman("network", "create", self.network(network))
        started = set()

        def start(name):
            if name in started:
                return
            started.add(name)
            for other, how in self.services[name].get("depends_on", {}).items():
                start(other)
                self.wait(other, how["condition"])
            self.run(name)

        for name in wanted or self.services:
            start(name)
        for name in started:
            runs = self.services[name].get("restart") != "no"
            self.wait(name, "service_healthy" if runs else "service_completed_successfully")

    def down(self):
        for name in reversed(list(self.services)):
            grace = seconds(self.services[name].get("stop_grace_period", "10s"))
            if podman("container", "exists", self.container(name), check=False).returncode == 0:
                podman("stop", "--time", str(grace), self.container(name), check=False)
                podman("rm", "--force", self.container(name), check=False)
        for volume in self.compose.get("volumes", {}).values():
            podman("volume", "rm", "--force", volume["name"], check=False)
        for network in self.compose.get("networks", {"default": None}):
            podman("network", "rm", "--force", self.network(network), check=False)


def main():
    file, name, what, *services = sys.argv[1:]
    project = Project(file, name)
    if what == "up":
        project.up(services)
    elif what == "down":
        project.down()
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
