# What scripts/dev and scripts/test share: finds what a build and its servers need, and fetches what is missing.
# Sourced, never run. A second run finds all of it and touches no network.
#
# Sets WALLEX_POSTGRES_BIN (folder with initdb, postgres, psql), WALLEX_KAFKA_HOME (folder with libs/*.jar) and, for the
# tests alone, WALLEX_REGISTRY_HOME (folder with Apicurio Registry's jar).
# System packages are installed only as root, or through a sudo that asks no password; else the message names them.

KAFKA_VERSION=4.1.0
REGISTRY_VERSION=2.6.13.Final
JAVA_LEAST=17
CACHE=${WALLEX_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/wallex}

say() { printf '==> %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# retry COMMAND...: for steps that use the network.
retry() {
  local pause
  for pause in 2 5 15; do
    "$@" && return 0
    warn "failed: $*; trying again in $pause s"
    sleep "$pause"
  done
  "$@"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_install() {
  command -v apt-get >/dev/null || return 1
  [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

# apt_update: once a run; a fresh machine knows no packages before it.
apt_update() {
  [ -n "${APT_UPDATED:-}" ] || retry as_root apt-get -qq update || return 1
  APT_UPDATED=1
}

# apt_install PACKAGE...: false when this user may not install, or when it failed.
apt_install() {
  can_install || return 1
  say "installing $*"
  apt_update || return 1
  retry as_root env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes \
    apt-get -qq -y --no-install-recommends install "$@" </dev/null >/dev/null
}

prepare_rust() {
  command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin
  command -v cargo >/dev/null ||
    die "Rust is missing. Install it with rustup (https://rustup.rs); it then picks the version in rust-toolchain.toml."
  if ! command -v cc >/dev/null; then
    apt_install gcc libc6-dev ||
      die "a C compiler (cc) is missing. Install gcc and the C library's headers (Debian: apt-get install gcc libc6-dev)."
  fi
}

# prepare_crates: the crates first and with retries, so that no later step fails for want of the network.
prepare_crates() {
  local host
  host=$(rustc -vV | sed -n 's/^host: //p')
  retry cargo fetch --quiet --locked --target "$host" ||
    die "the crates of Cargo.lock could not be fetched. Check the network, then run this again."
}

# The newest installed server; Debian keeps initdb out of PATH.
find_postgres() {
  local dir
  if [ -n "${WALLEX_POSTGRES_BIN:-}" ]; then
    [ -x "$WALLEX_POSTGRES_BIN/initdb" ] ||
      die "WALLEX_POSTGRES_BIN is $WALLEX_POSTGRES_BIN, but there is no initdb in it."
    return 0
  fi
  for dir in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin | sort -Vr); do
    [ -x "$dir/initdb" ] && [ -x "$dir/psql" ] && WALLEX_POSTGRES_BIN=$dir && return 0
  done
  dir=$(command -v initdb) || return 1
  WALLEX_POSTGRES_BIN=$(dirname "$(readlink -f "$dir")")
}

install_postgres() {
  can_install || return 1
  # Debian's package would start a server of its own on 5432: we only want its programs.
  local off=/etc/postgresql-common/createcluster.d/wallex.conf status=0
  as_root mkdir -p "${off%/*}"
  echo 'create_main_cluster = false' | as_root tee "$off" >/dev/null
  apt_install postgresql postgresql-client || status=1
  as_root rm -f "$off"
  return "$status"
}

prepare_postgres() {
  find_postgres || { install_postgres && find_postgres; } || die "the PostgreSQL server is missing. \
Install the package 'postgresql' (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; \
macOS: brew install postgresql@16), or set WALLEX_POSTGRES_BIN to the folder of its programs."
  export WALLEX_POSTGRES_BIN
}

find_java() {
  local java=java major
  [ -z "${JAVA_HOME:-}" ] || java=$JAVA_HOME/bin/java
  command -v "$java" >/dev/null || return 1
  major=$("$java" -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1)
  [ "${major:-0}" -ge "$JAVA_LEAST" ]
}

# A system has one or two of these versions; a JAVA_HOME that is set wrong is not mended by installing.
install_java() {
  local package
  [ -z "${JAVA_HOME:-}" ] && can_install && apt_update || return 1
  for package in openjdk-17-jre-headless openjdk-21-jre-headless openjdk-25-jre-headless; do
    [ -n "$(apt-cache --quiet=2 show "$package" 2>/dev/null)" ] || continue
    apt_install "$package" && find_java && return 0
  done
  return 1
}

# fetch_kafka: complete or not there: the folder gets its name only when every jar is in it.
fetch_kafka() {
  local home=$1 tmp
  say "fetching Apache Kafka $KAFKA_VERSION (about 55 MB) into $home"
  mkdir -p "${home%/*}" || return 1
  tmp=$(mktemp -d "$home.XXXXXX") || return 1
  if retry mvn -B -q -C -f "$ROOT/scripts/lib/kafka-pom.xml" -Dkafka.version="$KAFKA_VERSION" \
      -Dmaven.repo.local="$tmp/repository" \
      dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$tmp/libs" </dev/null; then
    rm -rf "$tmp/repository"
    chmod 755 "$tmp"
    # Another run may have been faster: its copy is as good, and mv would nest ours into it.
    if [ ! -f "$home/libs/kafka_2.13-$KAFKA_VERSION.jar" ]; then
      rm -rf "$home"
      mv "$tmp" "$home"
    fi
  fi
  rm -rf "$tmp"
  [ -f "$home/libs/kafka_2.13-$KAFKA_VERSION.jar" ]
}

# prepare_kafka: false, with WALLEX_KAFKA_MISSING saying why, when there is no Java or no jars.
prepare_kafka() {
  if ! find_java && ! install_java; then
    WALLEX_KAFKA_MISSING="Java $JAVA_LEAST or newer is missing. Install it (Debian: apt-get install \
openjdk-17-jre-headless) or set JAVA_HOME."
    [ -z "${JAVA_HOME:-}" ] ||
      WALLEX_KAFKA_MISSING="JAVA_HOME is $JAVA_HOME, but there is no Java $JAVA_LEAST or newer in it."
    return 1
  fi
  if [ -z "${WALLEX_KAFKA_HOME:-}" ]; then
    WALLEX_KAFKA_HOME=$CACHE/kafka-$KAFKA_VERSION
    if [ ! -f "$WALLEX_KAFKA_HOME/libs/kafka_2.13-$KAFKA_VERSION.jar" ]; then
      if ! command -v mvn >/dev/null && ! apt_install maven; then
        WALLEX_KAFKA_MISSING="Maven, which fetches Kafka's jars, is missing. Install it (Debian: apt-get install maven), \
or set WALLEX_KAFKA_HOME to an unpacked Apache Kafka $KAFKA_VERSION."
        return 1
      fi
      if ! fetch_kafka "$WALLEX_KAFKA_HOME"; then
        WALLEX_KAFKA_MISSING="Kafka's jars could not be fetched. Check the network, then run this again; or set \
WALLEX_KAFKA_HOME to an unpacked Apache Kafka $KAFKA_VERSION."
        return 1
      fi
    fi
  elif [ ! -d "$WALLEX_KAFKA_HOME/libs" ]; then
    WALLEX_KAFKA_MISSING="WALLEX_KAFKA_HOME is $WALLEX_KAFKA_HOME, but there is no folder libs in it."
    return 1
  fi
  export WALLEX_KAFKA_HOME
}

# fetch_registry: complete or not there, like Kafka.
fetch_registry() {
  local home=$1 tmp jar=apicurio-registry-app-$REGISTRY_VERSION
  say "fetching Apicurio Registry $REGISTRY_VERSION (about 140 MB) into $home"
  mkdir -p "${home%/*}" || return 1
  tmp=$(mktemp -d "$home.XXXXXX") || return 1
  # Maven runs in a folder without a project: the artifact is named in full.
  if (cd "$tmp" && retry mvn -B -q -C -Dmaven.repo.local="$tmp/repository" dependency:copy \
      -Dartifact="io.apicurio:apicurio-registry-app:$REGISTRY_VERSION:tar.gz:all" \
      -DoutputDirectory="$tmp/archive" </dev/null) &&
    mkdir "$tmp/app" && tar -xzf "$tmp/archive/$jar-all.tar.gz" -C "$tmp/app"; then
    chmod 755 "$tmp/app"
    # Another run may have been faster: its copy is as good, and mv would nest ours into it.
    if [ ! -f "$home/$jar-runner.jar" ]; then
      rm -rf "$home"
      mv "$tmp/app" "$home"
    fi
  fi
  rm -rf "$tmp"
  [ -f "$home/$jar-runner.jar" ]
}

# prepare_registry: after prepare_kafka, which has seen to Java. False, with WALLEX_REGISTRY_MISSING saying why.
prepare_registry() {
  local jar=apicurio-registry-app-$REGISTRY_VERSION-runner.jar
  if [ -n "${WALLEX_REGISTRY_HOME:-}" ]; then
    WALLEX_REGISTRY_MISSING="WALLEX_REGISTRY_HOME is $WALLEX_REGISTRY_HOME, but there is no $jar in it."
    [ -f "$WALLEX_REGISTRY_HOME/$jar" ] || return 1
    return 0
  fi
  WALLEX_REGISTRY_HOME=$CACHE/apicurio-$REGISTRY_VERSION
  if [ ! -f "$WALLEX_REGISTRY_HOME/$jar" ]; then
    WALLEX_REGISTRY_MISSING="Maven, which fetches Apicurio Registry, is missing. Install it (Debian: apt-get install maven), \
or set WALLEX_REGISTRY_HOME to an unpacked Apicurio Registry $REGISTRY_VERSION (the archive 'all')."
    command -v mvn >/dev/null || apt_install maven || return 1
    WALLEX_REGISTRY_MISSING="Apicurio Registry could not be fetched. Check the network, then run this again; or set \
WALLEX_REGISTRY_HOME to an unpacked Apicurio Registry $REGISTRY_VERSION (the archive 'all')."
    fetch_registry "$WALLEX_REGISTRY_HOME" || return 1
  fi
  export WALLEX_REGISTRY_HOME
}
