# What scripts/dev and scripts/test share: finds what a build and its servers need, and fetches what is missing.
# Sourced, never run. A second run finds all of it and touches no network.
#
# Sets WALLEX_POSTGRES_BIN (folder with initdb, postgres, psql), WALLEX_KAFKA_HOME (folder with libs/*.jar) and, for the
# tests alone, WALLEX_REGISTRY_HOME (folder with Apicurio Registry's jar), WALLEX_POSTGRES_18 and so on (as WALLEX_POSTGRES_BIN) and
# WALLEX_PGBOUNCER (the program).
# System packages are installed only as root, or through a sudo that asks no password; else the message names them.

KAFKA_VERSION=4.1.0
REGISTRY_VERSION=2.6.13.Final
# The majors that the tests run on beside the installed one. tests/it/support/servers.rs names the same versions.
POSTGRES_16=16.4.0
POSTGRES_17=17.6.0
POSTGRES_18=18.1.0
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

# postgres_platform: how Maven names this machine's PostgreSQL.
postgres_platform() {
  case $(uname -s)-$(uname -m) in
    Linux-x86_64) echo linux-amd64 ;;
    Linux-aarch64) echo linux-arm64v8 ;;
    Darwin-arm64) echo darwin-arm64v8 ;;
    Darwin-x86_64) echo darwin-amd64 ;;
    *) return 1 ;;
  esac
}

# fetch_postgres VERSION HOME: complete or not there, like Kafka. These packages have no psql: the installed one speaks to all.
fetch_postgres() {
  local version=$1 home=$2 tmp platform
  platform=$(postgres_platform) || return 1
  say "fetching PostgreSQL $version (about 15 MB) into $home"
  mkdir -p "${home%/*}" || return 1
  tmp=$(mktemp -d "$home.XXXXXX") || return 1
  if (cd "$tmp" && retry mvn -B -q -C -Dmaven.repo.local="$tmp/repository" dependency:unpack \
      -Dartifact="io.zonky.test.postgres:embedded-postgres-binaries-$platform:$version" \
      -DoutputDirectory="$tmp/archive" </dev/null) &&
    mkdir "$tmp/home" && tar -xJf "$tmp"/archive/*.txz -C "$tmp/home" &&
    ln -sf "$(readlink -f "$WALLEX_POSTGRES_BIN/psql")" "$tmp/home/bin/psql"; then
    chmod 755 "$tmp/home"
    # Another run may have been faster: its copy is as good, and mv would nest ours into it.
    if [ ! -x "$home/bin/psql" ]; then
      rm -rf "$home"
      mv "$tmp/home" "$home"
    fi
  fi
  rm -rf "$tmp"
  [ -x "$home/bin/psql" ]
}

# prepare_postgres_of MAJOR: after prepare_postgres. False, with WALLEX_POSTGRES_MISSING saying why.
prepare_postgres_of() {
  local major=$1 name=WALLEX_POSTGRES_$1 version=POSTGRES_$1 home
  version=${!version}
  if [ -n "${!name:-}" ]; then
    WALLEX_POSTGRES_MISSING="$name is ${!name}, but there is no initdb or no psql in it."
    [ -x "${!name}/initdb" ] && [ -x "${!name}/psql" ] || return 1
    return 0
  fi
  home=$CACHE/postgres-$version
  if [ ! -x "$home/bin/psql" ]; then
    WALLEX_POSTGRES_MISSING="Maven and xz, which fetch PostgreSQL $version, are missing. Install them (Debian: apt-get install maven \
xz-utils), or set $name to the folder of the programs of a PostgreSQL $major."
    command -v mvn >/dev/null || apt_install maven || return 1
    command -v xz >/dev/null || apt_install xz-utils || return 1
    WALLEX_POSTGRES_MISSING="PostgreSQL $version could not be fetched. Check the network, then run this again; or set $name to the \
folder of the programs of a PostgreSQL $major."
    fetch_postgres "$version" "$home" || return 1
  fi
  export "$name=$home/bin"
}

find_pgbouncer() {
  local path
  for path in "${WALLEX_PGBOUNCER:-}" "$(command -v pgbouncer)" /usr/sbin/pgbouncer; do
    [ -n "$path" ] && [ -x "$path" ] && WALLEX_PGBOUNCER=$path && return 0
  done
  return 1
}

install_pgbouncer() {
  can_install || return 1
  # Debian's package would start a service of its own: we only want its program.
  local policy=/usr/sbin/policy-rc.d status=0 ours=
  if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod 755 "$policy" || return 1
  fi
  apt_install pgbouncer || status=1
  [ -z "$ours" ] || as_root rm -f "$policy"
  # Nor is it to start with the machine.
  ! command -v systemctl >/dev/null || as_root systemctl --quiet disable pgbouncer >/dev/null 2>&1 || true
  return "$status"
}

# prepare_pgbouncer: for the tests. False, with WALLEX_PGBOUNCER_MISSING saying why.
prepare_pgbouncer() {
  if [ -n "${WALLEX_PGBOUNCER:-}" ] && [ ! -x "$WALLEX_PGBOUNCER" ]; then
    WALLEX_PGBOUNCER_MISSING="WALLEX_PGBOUNCER is $WALLEX_PGBOUNCER, but there is no such program."
    return 1
  fi
  WALLEX_PGBOUNCER_MISSING="PgBouncer is missing. Install it (Debian: apt-get install pgbouncer; its service is not needed), or set \
WALLEX_PGBOUNCER to the program."
  find_pgbouncer || { install_pgbouncer && find_pgbouncer; } || return 1
  export WALLEX_PGBOUNCER
}
