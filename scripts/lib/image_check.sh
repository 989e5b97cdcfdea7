# The fourth part of scripts/container_check: the image and the services of docker-compose.yml. Sourced, never run.

RUST_IMAGE=docker.io/library/rust:1.95.0-bookworm
DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim
POSTGRES_IMAGE=docker.io/library/postgres:17-bookworm
KAFKA_IMAGE=docker.io/apache/kafka:4.1.0

prepare_podman() {
  local tool
  for tool in podman runc netavark aardvark-dns iptables debootstrap; do
    command -v "$tool" >/dev/null || [ -x "/usr/lib/podman/$tool" ] || set -- "$@" "$tool"
  done
  [ "$#" = 0 ] || apt_install "$@" || die "missing: $*. Install them (Debian: apt-get install $*)."
}

# Settings of podman for this run: images and networks apart from the machine's own, limits that any machine allows.
configure_podman() {
  mkdir -p "$CACHE/containers" "$work/networks"
  cat > "$work/containers.conf" <<EOF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_backend = "netavark"
network_config_dir = "$work/networks"
[engine]
runtime = "runc"
EOF
  cat > "$work/storage.conf" <<EOF
[storage]
driver = "overlay"
graphroot = "$CACHE/containers/images"
runroot = "$work/run"
EOF
  export CONTAINERS_CONF=$work/containers.conf CONTAINERS_STORAGE_CONF=$work/storage.conf
}

# build ARGUMENT...: in the format that knows health checks.
build() {
  nice podman build --quiet --format docker --network host --isolation chroot --ulimit nofile=1024:1024 "$@" >/dev/null
}

# image NAME STAND_IN: pulled, or else what the function makes.
image() {
  podman image exists "$1" && return 0
  if podman pull --quiet "$1" >/dev/null 2>&1; then
    say "$1 is the registry's"
  else
    say "$1 cannot be pulled: making a stand-in"
    "$2" "$1"
  fi
}

stand_in_debian() {
  debootstrap --variant=minbase bookworm "$work/debian" >"$work/debootstrap.log" || { tail "$work/debootstrap.log"; return 1; }
  tar -C "$work/debian" -c . | podman import --quiet - "$1" >/dev/null
  rm -rf "$work/debian"
}

stand_in_rust() {
  build --tag "$1" - <<EOF
FROM $DEBIAN_IMAGE
RUN apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install gcc libc6-dev ca-certificates >/dev/null
ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true
EOF
}

stand_in_postgres() { build --tag "$1" scripts/lib/stand_ins/postgres; }

stand_in_kafka() {
  prepare_kafka || die "$WALLEX_KAFKA_MISSING"
  cp -r scripts/lib/stand_ins/kafka "$work/kafka"
  cp -r "$WALLEX_KAFKA_HOME/libs" "$work/kafka/libs"
  build --tag "$1" "$work/kafka"
  rm -rf "$work/kafka"
}

compose() { "$tools/bin/python" scripts/lib/compose_run.py docker-compose.yml wallex "$@"; }

image_check() {
  local profile=dev registry begun=$SECONDS sysroot
  [ "$1" != --release ] || profile=release
  prepare_rust
  prepare_podman
  work=$(mktemp -d /tmp/wallex-image.XXXXXX)
  trap 'rm -rf "$work"' EXIT
  configure_podman
  image "$DEBIAN_IMAGE" stand_in_debian
  image "$RUST_IMAGE" stand_in_rust
  image "$POSTGRES_IMAGE" stand_in_postgres
  image "$KAFKA_IMAGE" stand_in_kafka

  say "building the image with the profile $profile"
  prepare_crates
  # The stand-in has no toolchain of its own; the crates are this machine's, so that they are not fetched once more.
  registry=${CARGO_HOME:-$HOME/.cargo}/registry
  sysroot=$(readlink -f "$(rustc --print sysroot)")
  build --volume "$registry:/usr/local/cargo/registry" --volume "$sysroot:/usr/local/rust:ro" \
    --build-arg "PROFILE=$profile" --tag wallex:local .
  say "built after $((SECONDS - begun)) s"
  [ "$(podman image inspect --format '{{.Config.User}} {{.Config.Healthcheck.Test}}' wallex:local)" = \
    "65532:65532 [CMD /usr/local/bin/wallex healthcheck]" ] || die "the image has another user or another health check"

  say "starting the services of docker-compose.yml"
  export -f say die soon wired compose
  export tools
  unshare --net bash -c 'set -euo pipefail; ip link set lo up; trap "compose down" EXIT; compose up; wired'
}

# soon PATTERN COMMAND...: waits until it says so, a minute at most.
soon() {
  local pattern=$1 said end=$((SECONDS + 60))
  shift
  while said=$("$@" 2>&1); ! grep -q "$pattern" <<< "$said"; do
    [ "$SECONDS" -lt "$end" ] || die "$* does not say $pattern: $said"
    sleep 0.5
  done
}

# wired: what the services do together. Within their network namespace.
wired() {
  local base=http://127.0.0.1:3000 said
  curl -sSf "$base/wallets" -H 'Content-Type: application/json' -d '{"walletId":"w","ownerId":"check"}' >/dev/null
  said=$(curl -sSf "$base/wallets/w/credit" -H 'Content-Type: application/json' -d '{"amount":"1.50"}')
  case $said in *'"balance":"1.50"'*) ;; *) die "not credited: $said" ;; esac
  soon '"unprocessedEvents":0.*"status":"healthy"' curl -sS "$base/health/kafka"
  # By the names without .sh, as the documentation has them.
  soon '^wallet-events$' podman exec kafka kafka-topics --bootstrap-server localhost:9092 --list
  soon '^ledger-projector$' podman exec kafka kafka-consumer-groups --bootstrap-server localhost:9092 --list
  podman exec wallex-app /usr/local/bin/wallex reconcile --wait 30s | tail -n 1
  ! podman exec wallex-app /usr/bin/touch /written 2>/dev/null || die "the root can be written to"
  said=$(podman exec wallex-app /usr/bin/id -u)
  [ "$said" = 65532 ] || die "the service runs as $said"
}
