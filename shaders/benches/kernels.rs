//! What the kernels reach on the card at hand: TFLOP/s of dense layers, GB/s of those that read weights once.
//!
//! ```text
//! cargo build --workspace --bench kernels     # then run it, also elsewhere: it is one file
//! kernels [--peak-tflops 67 --peak-gbs 4800] [--adapter NAME] [--quick]
//! ```
//!
//! A case is timed as a chain of equal steps in one submission, long and short: the difference is the steps alone,
//! without the way there and back. The median of the rounds counts. With the card's limits, as its maker states
//! them, a share of them is printed too. `--quick` takes sizes for software adapters.

use std::time::{Duration, Instant};

use inferq_engine::gpu::{
    Activation, Choice, Gpu, GpuError, GpuPolicy, Layer, Operation, Program, Source, Step, Tile,
    Weights,
};

const ROUNDS: usize = 7;
/// Steps of a long chain are so many at least, and at most.
const CHAIN: [usize; 2] = [5, 128];
/// Weights of a long chain are so many bytes at least, so that no cache of a card holds them from one round to the next.
const BEYOND_CACHES: usize = 256 << 20;

struct Options {
    peak_tflops: Option<f64>,
    peak_gbs: Option<f64>,
    adapter: Option<String>,
    quick: bool,
}

fn main() -> Result<(), String> {
    let options = Options::read(std::env::args().skip(1))?;
    let gpu = Gpu::open_with(GpuPolicy::Force, options.adapter.as_deref(), true)
        .map_err(|error| error.to_string())?;
    let gpu = gpu.ok_or("there is no adapter")?;
    let info = gpu.info();
    println!(
        "{} ({}, {}, {})",
        info.name, info.kind, info.backend, info.driver
    );
    copies(&gpu, &options)?;
    layers(&gpu, &options)
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Options {
            peak_tflops: None,
            peak_gbs: None,
            adapter: None,
            quick: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            let number = |text: String| {
                text.parse::<f64>()
                    .map_err(|error| format!("{text}: {error}"))
            };
            match &word[..] {
                "--peak-tflops" => options.peak_tflops = Some(number(value()?)?),
                "--peak-gbs" => options.peak_gbs = Some(number(value()?)?),
                "--adapter" => options.adapter = Some(value()?),
                "--quick" => options.quick = true,
                // What cargo bench adds.
                "--bench" => {}
                _ => {
                    return Err(format!(
                        "unknown word `{word}`; there are --peak-tflops, --peak-gbs, --adapter and --quick"
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// Reading and writing as fast as a kernel that does nothing else.
fn copies(gpu: &Gpu, options: &Options) -> Result<(), String> {
    let count = if options.quick { 1 << 16 } else { 64 << 20 };
    let clip = Activation::Clip {
        low: f32::NEG_INFINITY,
        high: f32::INFINITY,
    };
    let step = || Operation::Elementwise {
        combine: None,
        activation: Some(clip),
    };
    let took = step_time(gpu, step, &[count], Choice::Likely, CHAIN[0])?;
    let gbs = 8.0 * count as f64 / took.as_secs_f64() / 1e9;
    println!(
        "copy {:>7.1} MB: {:>9.3} ms {:>8.1} GB/s{}",
        4e-6 * count as f64,
        milliseconds(took),
        gbs,
        share(gbs, options.peak_gbs)
    );
    Ok(())
}

fn layers(gpu: &Gpu, options: &Options) -> Result<(), String> {
    let (rows, widths): (&[usize], &[usize]) = match options.quick {
        true => (&[1, 17], &[96]),
        false => (&[1, 4, 16, 64, 256, 1_024, 4_096], &[1_024, 4_096]),
    };
    println!(
        "{:>6} {:>6} {:>8} {:>8} {:>10} {:>9} {:>9}",
        "rows", "width", "kernel", "weights", "ms", "TFLOP/s", "GB/s"
    );
    for width in widths {
        for row_count in rows {
            for kept_as in Weights::ALL {
                let tiles: &[Tile] = match kept_as {
                    // On the other kernels it is f16.
                    Weights::Half if gpu.cooperates().is_none() => &[],
                    Weights::Half => &[Tile::Cooperative],
                    Weights::F32 | Weights::F16 | Weights::Int8 => &Tile::ALL,
                };
                for tile in tiles {
                    let sizes = [*row_count, *width, *width];
                    let taken = Choice::Only(*tile).tile(sizes, true);
                    if tile.suits(*row_count) && taken == *tile {
                        layer(gpu, options, *row_count, *width, kept_as, *tile)?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn layer(
    gpu: &Gpu,
    options: &Options,
    rows: usize,
    width: usize,
    kept_as: Weights,
    tile: Tile,
) -> Result<(), String> {
    // Each step has weights of its own, and the chain more of them than a cache holds.
    let mut seed = 0u32;
    let step = || {
        seed += 1;
        Operation::Linear(Layer {
            inputs: width,
            outputs: width,
            weights: numbers(width * width, seed),
            bias: vec![0.0; width],
            activation: None,
            kept_as,
        })
    };
    let bytes = width
        * width
        * match kept_as {
            Weights::F32 => 4,
            Weights::F16 | Weights::Half => 2,
            Weights::Int8 => 1,
        };
    let length = match options.quick {
        true => CHAIN[0],
        false => (BEYOND_CACHES / bytes).clamp(CHAIN[0], CHAIN[1]),
    };
    let took = step_time(gpu, step, &[rows, width], Choice::Only(tile), length)?;
    let seconds = took.as_secs_f64();
    let tflops = 2.0 * (rows * width * width) as f64 / seconds / 1e12;
    let gbs = (bytes as f64 + 8.0 * (rows * width) as f64) / seconds / 1e9;
    println!(
        "{rows:>6} {width:>6} {:>8} {:>8} {:>10.4} {tflops:>9.3}{} {gbs:>9.1}{}",
        tile.name(),
        format!("{kept_as:?}").to_lowercase(),
        milliseconds(took),
        share(tflops, options.peak_tflops),
        share(gbs, options.peak_gbs),
    );
    Ok(())
}

fn milliseconds(took: Duration) -> f64 {
    1e3 * took.as_secs_f64()
}

fn share(reached: f64, peak: Option<f64>) -> String {
    peak.map_or_else(String::new, |peak| {
        format!(" ({:.0} %)", 100.0 * reached / peak)
    })
}

/// One step of a chain of them, by what a longer chain takes more.
fn step_time(
    gpu: &Gpu,
    mut operation: impl FnMut() -> Operation,
    shape: &[usize],
    choice: Choice,
    length: usize,
) -> Result<Duration, String> {
    let told = |error: GpuError| error.to_string();
    let mut chain = |length: usize| {
        let steps = (0..length).map(|input| Step {
            operation: operation(),
            inputs: vec![input],
        });
        Program::new(gpu, &[Source::Given], steps, &[length]).map_err(told)
    };
    let lengths = [1, length];
    let programs = [chain(1)?, chain(length)?];
    let input = numbers(shape.iter().product(), 1);
    let mut differences = Vec::with_capacity(ROUNDS);
    for round in 0..=ROUNDS {
        let mut took = [Duration::ZERO; 2];
        for (program, (took, length)) in programs.iter().zip(took.iter_mut().zip(lengths)) {
            let shapes = vec![shape.to_vec(); length + 1];
            let started = Instant::now();
            program.run(&[&input], &shapes, choice).map_err(told)?;
            *took = started.elapsed();
        }
        // The first compiles.
        if round > 0 {
            differences.push(took[1].saturating_sub(took[0]) / (length - 1) as u32);
        }
    }
    differences.sort_unstable();
    Ok(differences[ROUNDS / 2].max(Duration::from_nanos(1)))
}

/// Repeatable numbers in -1 to 1.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
