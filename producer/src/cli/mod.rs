//! The commands. Each is a file; `output.rs` is how all of them speak.

mod bench;
mod call;
mod cancel;
mod confirm;
mod dead;
mod follow;
mod init;
mod input;
mod models;
mod output;
mod queue;
mod result;
mod score;
mod submit;
mod telemetry;
mod up;
mod workers;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use inferq::Client;

use output::Output;

/// Where `inferq up` listens unless told.
const DEFAULT_SERVER: &str = "nats://127.0.0.1:4222";

/// Runs ONNX models behind a message queue.
///
/// Start with `inferq up --models DIR`; then `inferq call MODEL BODY` in another terminal.
#[derive(Debug, Parser)]
#[command(name = "inferq", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, clap::Args)]
struct Global {
    /// The NATS server; several may be given with commas. nats://127.0.0.1:4222 unless told.
    #[arg(
        long,
        global = true,
        env = "INFERQ_NATS",
        value_name = "URL",
        hide_env_values = true
    )]
    nats: Option<String>,
    /// A NATS credentials file.
    #[arg(long, global = true, env = "INFERQ_NATS_CREDS", value_name = "FILE")]
    nats_creds: Option<PathBuf>,
    /// The prefix of all subjects of the deployment.
    #[arg(long, global = true, env = "INFERQ_PREFIX", default_value = "infer")]
    prefix: String,
    /// One JSON value per line, for programs.
    #[arg(long, global = true, env = "INFERQ_JSON", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::SetTrue)]
    json: bool,
    /// Send traces to this OpenTelemetry collector (gRPC), such as http://127.0.0.1:4317.
    #[arg(long, global = true, env = "INFERQ_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Init(init::Init),
    Up(Box<up::Up>),
    Submit(submit::Submit),
    Call(call::Call),
    Result(result::ResultOf),
    Cancel(cancel::Cancel),
    Workers(workers::Workers),
    Models(models::Models),
    Queue(queue::Queue),
    Dead(dead::Dead),
    Score(Box<score::ScoreArgs>),
    Bench(bench::Bench),
}

/// How a command ended, apart from errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// As wished.
    Well,
    /// The command did its work, and what it shows is a failure that it has printed.
    ShowingFailure,
    /// With this exit code, and everything said.
    With(u8),
}

impl Global {
    /// Was a server named?
    fn names_server(&self) -> bool {
        self.nats.is_some()
    }

    async fn connect(&self) -> anyhow::Result<Client> {
        let mut builder = Client::builder().prefix(&self.prefix);
        if let Some(file) = &self.nats_creds {
            builder = builder.credentials(file);
        }
        let url = self.nats.as_deref().unwrap_or(DEFAULT_SERVER);
        Ok(builder.connect(url).await?)
    }
}

/// What threads may take that still write when a command has ended.
const THREADS_END_WITHIN: Duration = Duration::from_secs(10);

/// Reads the flags and runs the command: exit code 0, 1 for an error, 2 for wrong usage.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.global.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            output.error(&anyhow::Error::new(error).context("the runtime could not be started"));
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        let _telemetry = telemetry::start(cli.global.otlp_endpoint.as_deref())?;
        execute(cli, &output).await
    });
    // A thread that reads a pipe nobody writes to would be waited for for ever.
    runtime.shutdown_timeout(THREADS_END_WITHIN);
    match ended {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::ShowingFailure) => ExitCode::FAILURE,
        Ok(Ended::With(code)) => ExitCode::from(code),
        Err(error) => {
            output.error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn execute(cli: Cli, output: &Output) -> anyhow::Result<Ended> {
    let global = &cli.global;
    match cli.command {
        Command::Init(command) => command.run(global, output).await,
        Command::Up(command) => command.run(global, output).await,
        Command::Submit(command) => command.run(global, output).await,
        Command::Call(command) => command.run(global, output).await,
        Command::Result(command) => command.run(global, output).await,
        Command::Cancel(command) => command.run(global, output).await,
        Command::Workers(command) => command.run(global, output).await,
        Command::Models(command) => command.run(global).await,
        Command::Queue(command) => command.run(global, output).await,
        Command::Dead(command) => command.run(global, output).await,
        Command::Score(command) => command.run(global, output).await,
        Command::Bench(command) => command.run(global, output).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_readme_are_understood() {
        for line in [
            "inferq init --models DIR --replicas 3",
            "inferq up --models DIR --workers 2 --port 4333 --redis off",
            "inferq up --models DIR --redis redis://127.0.0.1:6379 -- --max-batch-rows 8",
            "inferq call digits {\"instances\":[[1]]}",
            "inferq call digits - --nats nats://10.0.0.1:4222 --json",
            "inferq submit digits @job.json --wait",
            "inferq submit digits @job.json --wait 10s --lane low --key k",
            "inferq submit digits @job.json --follow",
            "inferq submit digits @job.json --follow --wait 10m --json",
            "inferq result JOB --wait 5s",
            "inferq cancel JOB ANOTHER --json",
            "inferq workers --json",
            "inferq queue ls --json",
            "inferq queue show digits --lane low",
            "inferq queue purge digits --yes",
            "inferq dead ls --model digits --code 400 --since 2h --limit 10",
            "inferq dead show JOB",
            "inferq dead replay JOB OTHER --timeout 5m --wait 10s",
            "inferq dead replay --all --status dead --until 10m --yes",
            "inferq dead purge --all --lane low --yes",
            "inferq score --model digits --models DIR --in rows.csv --out rows.parquet --keep id:int64,name",
            "inferq score --model digits@2 --nats nats://10.0.0.1 --in a.csv b*.csv.gz --out - --resume --map a,b=x",
            "inferq models check model.onnx --explain --gpu off",
            "inferq bench digits --body {} --mode jobs --rate 100 --duration 5s",
            "inferq bench digits --body {} --concurrency 8 --count 1000",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(
                parsed.is_ok(),
                "{line}: {}",
                parsed.expect_err("it is an error")
            );
        }
    }
}
