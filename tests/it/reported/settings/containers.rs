//! Rows "compose by docker-compose 1.29" and "docker compose up --build": what can be said of the
//! files without an engine. `scripts/container_check` builds the image and starts it.

use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

/// The older program knows these keys at the top of a file, and refuses any other.
#[test]
fn compose_files_have_at_their_top_what_docker_compose_1_29_knows() {
    for file in ["docker-compose.yml", "docker-compose.prod.yml"] {
        let text = read(file);
        let keys = text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
        for key in keys.map(|line| line.split(':').next().unwrap()) {
            let known = ["configs", "networks", "secrets", "services", "version", "volumes"];
            assert!(known.contains(&key) || key.starts_with("x-"), "{file}: {key}");
        }
        // Without a project's name in the file, the folder would decide where the data is.
        let (_, volumes) = text.split_once("\nvolumes:\n").unwrap();
        let volumes = volumes.split("\n\n").next().unwrap().trim_end();
        for pair in volumes.lines().collect::<Vec<_>>().chunks(2) {
            let [volume, name] = pair else { panic!("{file}: {pair:?}") };
            let project = if file.contains("prod") { "wallex-prod" } else { "wallex" };
            let wanted = format!("name: {project}_{}", volume.trim().trim_end_matches(':'));
            assert_eq!(name.trim(), wanted, "{file}");
        }
    }
}

/// The lines of the Dockerfile up to each `cargo build`, done in a folder: Cargo reads the manifest
/// there, which names no target whose file is missing.
#[test]
fn the_dockerfile_copies_every_file_that_the_manifest_names() {
    let folder = tempfile::tempdir().unwrap();
    let dockerfile = read("Dockerfile").replace("\\\n", " ");
    let (build, _) = dockerfile.split_once("\nFROM debian").unwrap();
    let mut builds = 0;
    for line in build.lines() {
        match line.split_once(' ') {
            Some(("COPY", ". .")) => copy_context(folder.path()),
            Some(("COPY", files)) => {
                let files: Vec<&str> = files.split_whitespace().collect();
                let (to, from) = files.split_last().unwrap();
                assert_eq!(*to, "./", "{line}");
                for file in from {
                    std::fs::copy(Path::new(ROOT).join(file), folder.path().join(file)).unwrap();
                }
            }
            Some(("RUN", script)) => {
                builds += script.matches("cargo build").count();
                run(folder.path(), script);
            }
            _ => {}
        }
    }
    assert_eq!(builds, 2, "the dependencies and the service");
}

/// What compiles the files into the binary must find them in the image, too.
#[test]
fn what_is_compiled_into_the_binary_is_copied_into_the_image() {
    let folder = tempfile::tempdir().unwrap();
    copy_context(folder.path());
    let mut included = 0;
    for source in files(&folder.path().join("src")) {
        let text = std::fs::read_to_string(&source).unwrap();
        for part in text.split("include_str!(\"").chain(text.split("include_bytes!(\"")).skip(1) {
            let Some((path, _)) = part.split_once("\")") else { continue };
            if !path.contains(['\n', ' ']) {
                let file = source.parent().unwrap().join(path);
                assert!(file.exists(), "{} includes {path}", source.display());
                included += 1;
            }
        }
    }
    assert!(included > 0 && folder.path().join("migrations").is_dir());
    let dockerfile = read("Dockerfile");
    for line in ["USER 65532:65532", "HEALTHCHECK ", "ENTRYPOINT [\"/usr/local/bin/wallex\"]"] {
        assert!(dockerfile.lines().any(|found| found.starts_with(line)), "{line}");
    }
}

/// A `RUN` of the Dockerfile, where `cargo build` only reads the manifest.
fn run(folder: &Path, script: &str) {
    let script = format!(
        "cargo() {{ case $1 in build) command cargo metadata --no-deps --offline --format-version 1 \
         >/dev/null;; esac; }}\ncp() {{ [ \"$1\" = 'target/*/wallex' ] || command cp \"$@\"; }}\n{script}"
    );
    let output = Command::new("bash").args(["-c", &script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `COPY . .`: all but what `.dockerignore` names and what no clone has.
fn copy_context(to: &Path) {
    let ignored = read(".dockerignore");
    let ignored: Vec<&str> =
        ignored.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    for entry in std::fs::read_dir(ROOT).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let is_ignored = |pattern: &&str| match pattern.strip_prefix('*') {
            Some(end) => name.ends_with(end),
            None => name == **pattern,
        };
        if ignored.iter().any(is_ignored) {
            continue;
        }
        let from: Vec<PathBuf> = if path.is_dir() { files(&path) } else { vec![path] };
        for file in from {
            let copy = to.join(file.strip_prefix(ROOT).unwrap());
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(file, copy).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}
