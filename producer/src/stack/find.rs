//! Where the programs are that a stack starts.

use std::path::{Path, PathBuf};

use super::StackError;

/// Where packages put servers that an ordinary user's PATH may leave out.
const SERVER_FOLDERS: [&str; 5] = [
    "/usr/sbin",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/opt/homebrew/bin",
    "/opt/homebrew/sbin",
];

/// The nats-server named by NATS_SERVER, else the one on PATH.
pub(super) fn nats_server() -> Result<PathBuf, StackError> {
    if let Some(named) = std::env::var_os("NATS_SERVER").filter(|name| !name.is_empty()) {
        let named = PathBuf::from(named);
        return if is_program(&named) {
            Ok(named)
        } else {
            Err(StackError::NoNats(format!(
                "NATS_SERVER names {}, which is no program",
                named.display()
            )))
        };
    }
    server("nats-server").ok_or_else(|| StackError::NoNats("it is not on PATH".to_owned()))
}

/// The redis-server on PATH, if there is one.
pub(super) fn redis_server() -> Option<PathBuf> {
    server("redis-server")
}

/// A program of PATH.
pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| is_program(file))
}

/// The worker program: named, beside this program, or on PATH.
///
/// Tests and examples lie in `deps/` or `examples/` below the folder of the programs they belong to.
///
/// # Errors
/// [`StackError::NoWorkerProgram`] that names the three places.
pub fn worker_program(named: Option<&Path>) -> Result<PathBuf, StackError> {
    let own = std::env::current_exe().unwrap_or_default();
    look_for_worker(named, &own, on_path)
}

fn look_for_worker(
    named: Option<&Path>,
    own: &Path,
    on_path: impl Fn(&str) -> Option<PathBuf>,
) -> Result<PathBuf, StackError> {
    let file = format!("inferq-worker{}", std::env::consts::EXE_SUFFIX);
    if let Some(named) = named {
        return if is_program(named) {
            Ok(named.to_owned())
        } else {
            Err(StackError::NoWorkerProgram {
                named: format!("{} (not a program)", named.display()),
                beside: "not looked".to_owned(),
            })
        };
    }
    let folder = own.parent().unwrap_or(Path::new("."));
    let inner = folder
        .file_name()
        .is_some_and(|name| name == "deps" || name == "examples");
    let outer = folder.parent().filter(|_| inner).unwrap_or(folder);
    let beside = outer.join(&file);
    if is_program(&beside) {
        return Ok(beside);
    }
    on_path(&file).ok_or_else(|| StackError::NoWorkerProgram {
        named: "not given".to_owned(),
        beside: beside.display().to_string(),
    })
}

fn server(name: &str) -> Option<PathBuf> {
    let elsewhere = || {
        SERVER_FOLDERS
            .iter()
            .map(|folder| Path::new(folder).join(name))
    };
    on_path(name).or_else(|| elsewhere().find(|file| is_program(file)))
}

#[cfg(unix)]
fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(file);
    metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(file: &Path) -> bool {
    file.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn program(file: &Path) {
        let folder = file.parent().expect("a file in a folder");
        fs::create_dir_all(folder).expect("a writable folder");
        fs::write(file, "#!/bin/sh\n").expect("a writable file");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("our own file");
        }
    }

    #[test]
    fn a_test_or_example_finds_the_worker_one_folder_up() {
        let target = tempfile::tempdir().expect("a temporary folder");
        let worker = target.path().join("debug/inferq-worker");
        program(&worker);
        for own in ["debug/deps/rpc-1234", "debug/examples/demo", "debug/inferq"] {
            let found = look_for_worker(None, &target.path().join(own), |_| None);
            assert_eq!(found.expect("it is there"), worker, "{own}");
        }
    }

    #[test]
    fn the_named_program_wins_and_path_comes_last() {
        let target = tempfile::tempdir().expect("a temporary folder");
        let (named, own) = (
            target.path().join("mine"),
            target.path().join("debug/inferq"),
        );
        program(&named);
        let found = look_for_worker(Some(&named), &own, |_| None);
        assert_eq!(found.expect("it is there"), named);
        let found = look_for_worker(None, &own, |name| Some(Path::new("/opt").join(name)));
        assert!(found.expect("PATH has it").starts_with("/opt"));
    }

    #[test]
    fn a_missing_worker_is_an_error_that_names_all_three_places() {
        let own = Path::new("/nowhere/debug/inferq");
        let error = look_for_worker(None, own, |_| None).expect_err("it is nowhere");
        let text = error.to_string();
        for place in ["--worker-bin", "/nowhere/debug/inferq-worker", "PATH"] {
            assert!(text.contains(place), "{place} is missing in: {text}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_run_is_not_taken() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("inferq-worker");
        fs::write(&file, "text").expect("a writable file");
        assert!(look_for_worker(Some(&file), Path::new("/x/y"), |_| None).is_err());
    }
}
