//! The configuration of a private nats-server, as a file that it reads.

use std::path::{Path, PathBuf};

use super::{NatsOptions, Port};
use crate::stack::StackError;

/// Room beyond the sum of all streams: the server counts more than message bytes.
const SLACK: u64 = 64 << 20;

/// Writes the file and returns where it is.
pub(super) fn write(options: &NatsOptions, data: &Path) -> Result<PathBuf, StackError> {
    let ports = ports_folder(data);
    std::fs::create_dir_all(&ports).map_err(|source| StackError::folder(&ports, source))?;
    let file = data.join("nats.conf");
    let text = configuration(options, data);
    std::fs::write(&file, text).map_err(|source| StackError::folder(&file, source))?;
    Ok(file)
}

/// Where the server tells its ports.
pub(super) fn ports_folder(data: &Path) -> PathBuf {
    data.join("ports")
}

/// Only what servers from 2.9.10 on know.
fn configuration(options: &NatsOptions, data: &Path) -> String {
    let port = match options.port {
        Port::Fixed(port) => i32::from(port),
        Port::Free => -1,
    };
    format!(
        "# Written by inferq; changes are lost.\n\
         server_name: \"{name}\"\n\
         host: \"{host}\"\n\
         port: {port}\n\
         ports_file_dir: {ports}\n\
         max_payload: {payload}\n\
         jetstream {{\n  store_dir: {store}\n  max_mem: {memory}\n  max_file: {file}\n}}\n{more}\n",
        name = options.name,
        host = options.listen,
        ports = quoted(&ports_folder(data)),
        payload = options.max_payload.as_u64(),
        store = quoted(&data.join("jetstream")),
        memory = options.max_memory.as_u64().saturating_add(SLACK),
        file = options.max_file.as_u64().saturating_add(SLACK),
        more = options.more,
    )
}

/// A string of the server's configuration language.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_quotes_stay_one_string() {
        assert_eq!(quoted(Path::new("/a \"b\"/c")), r#""/a \"b\"/c""#);
    }
}
