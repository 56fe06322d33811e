//! Copies tables into one file of another format: `cargo run --example convert -- 'in/*.csv' out.parquet`.
//!
//! `-:FORMAT` is standard input or output, as in `-:jsonl`. Cells of text formats stay text; those of lines
//! that cannot be read are left empty, and the reason goes to standard error.

use std::error::Error;
use std::path::Path;

use inferq::score::input::{self, Compression, Format};
use inferq::score::read::Reader;
use inferq::score::write::{Target, Writer};

/// Rows in memory at once.
const PIECE: usize = 4_096;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((out, ins)) = arguments.split_last() else {
        return Err("convert IN... OUT, each a file or -:FORMAT".into());
    };
    let files = match ins {
        [stream] if stream.starts_with("-:") => {
            input::find(&["-".to_owned()], Some(stream[2..].parse()?))?
        }
        paths => input::find(paths, None)?,
    };
    let (target, format, compression) = match out.strip_prefix("-:") {
        Some(format) => (Target::Stdout, format.parse()?, Compression::None),
        None => {
            let path = Path::new(out);
            let (format, compression): (Format, _) =
                Format::of(path).ok_or("the name of the output has no known ending")?;
            (Target::File(path.to_owned()), format, compression)
        }
    };
    let mut reader = Reader::open(files)?;
    let mut writer = Writer::create(target, format, compression, reader.columns().clone())?;
    while let Some(records) = reader.read(PIECE)? {
        for problem in &records.problems {
            eprintln!("row {}: {}", problem.row, problem.message);
        }
        writer.write(&records.batch)?;
    }
    Ok(writer.finish()?)
}
