//! `inferq queue`: what waits for workers.

use anyhow::bail;
use inferq::{
    Lane, ModelName, ReplyPrefixes,
    queue::{PurgeOptions, Purged, QueueState, Queues},
};
use serde_json::{Value, json};

use super::{
    Ended, Global,
    confirm::{Unasked, confirmed},
    output::{Output, age, size, unix_ms},
};

/// Look at the queues of models, or empty one.
#[derive(Debug, clap::Args)]
pub(super) struct Queue {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, clap::Subcommand)]
enum QueueCommand {
    /// List the queues of all models.
    Ls,
    /// Show the queues of one model in detail.
    Show(Show),
    /// End all jobs of a queue as `cancelled` and remove them, those that workers hold included.
    Purge(Purge),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The model.
    model: ModelName,
    /// Only this lane: high, normal or low.
    #[arg(long)]
    lane: Option<Lane>,
}

#[derive(Debug, clap::Args)]
struct Purge {
    /// The model.
    model: ModelName,
    /// Only this lane: high, normal or low.
    #[arg(long)]
    lane: Option<Lane>,
    /// Where replies may be sent, as the workers are told; may be repeated.
    #[arg(
        long = "reply-prefix",
        env = "INFERQ_REPLY_PREFIX",
        value_name = "SUBJECT",
        value_delimiter = ',',
        default_value = "_INBOX,infer.reply"
    )]
    reply_prefixes: Vec<String>,
    /// Do not ask; needed where nobody can be asked.
    #[arg(long, short)]
    yes: bool,
}

impl Queue {
    pub(super) async fn run(self, global: &Global, output: &Output) -> anyhow::Result<Ended> {
        let client = global.connect().await?;
        let queues = client.queues();
        match self.command {
            QueueCommand::Ls => ls(&queues, output).await?,
            QueueCommand::Show(show) => show.run(&queues, output).await?,
            QueueCommand::Purge(purge) => purge.run(&queues, output).await?,
        }
        client.close().await;
        Ok(Ended::Well)
    }
}

async fn ls(queues: &Queues, output: &Output) -> anyhow::Result<()> {
    let all = queues.list().await?;
    if output.is_json() {
        return all.iter().try_for_each(|queue| output.line(&line(queue)));
    }
    if all.is_empty() {
        output.note("no model is known yet: run `inferq init --models DIR`");
        return Ok(());
    }
    let rows = all.iter().map(|queue| row(queue, output)).collect();
    output.table(
        &[
            "model", "lane", "jobs", "waiting", "held", "again", "oldest", "size", "limit",
        ],
        rows,
    );
    Ok(())
}

impl Show {
    async fn run(self, queues: &Queues, output: &Output) -> anyhow::Result<()> {
        let found = queues.of(&self.model).await?;
        let wanted = |queue: &&QueueState| self.lane.is_none_or(|lane| lane == queue.lane);
        for queue in found.iter().filter(wanted) {
            if output.is_json() {
                output.line(&line(queue))?;
            } else {
                output.print(&details(queue, output));
            }
        }
        Ok(())
    }
}

impl Purge {
    async fn run(self, queues: &Queues, output: &Output) -> anyhow::Result<()> {
        let options = PurgeOptions {
            reply_prefixes: ReplyPrefixes::new(self.reply_prefixes)?,
        };
        let found = queues.of(&self.model).await?;
        let wanted = |queue: &&QueueState| self.lane.is_none_or(|lane| lane == queue.lane);
        let lanes: Vec<&QueueState> = found.iter().filter(wanted).collect();
        let jobs: u64 = lanes.iter().map(|queue| queue.jobs).sum();
        let question = format!(
            "End {jobs} jobs of model {} as `cancelled`, and remove them?",
            self.model
        );
        if !confirmed(&question, self.yes, Unasked::Refuse)? {
            bail!("nothing was removed");
        }
        for queue in lanes {
            let purged = queues.purge(&self.model, queue.lane, &options).await?;
            tell(&self.model, queue.lane, purged, output)?;
        }
        Ok(())
    }
}

fn tell(model: &ModelName, lane: Lane, purged: Purged, output: &Output) -> anyhow::Result<()> {
    let Purged {
        removed,
        answered,
        bodies_left,
    } = purged;
    if output.is_json() {
        return output.line(&json!({
            "model": model, "lane": lane, "removed": removed, "answered": answered,
            "bodies_left": bodies_left,
        }));
    }
    output.print(&format!("{model} {lane}: {removed} jobs removed"));
    if answered > 0 {
        output.note(&format!(
            "{answered} more had an outcome already; a worker takes them off"
        ));
    }
    if bodies_left > 0 {
        output.note(&format!(
            "{bodies_left} bodies by reference could not be deleted; they leave the bucket after a day"
        ));
    }
    Ok(())
}

fn row(queue: &QueueState, output: &Output) -> Vec<String> {
    let consumer = queue.consumer.as_ref();
    let number = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
    let limit = number(queue.stream.max_jobs_per_queue);
    vec![
        queue.model.clone(),
        queue.lane.to_string(),
        match consumer {
            Some(_) => queue.jobs.to_string(),
            None => output.bad(&format!("{}, unknown model", queue.jobs)),
        },
        number(consumer.map(|consumer| consumer.waiting)),
        number(consumer.map(|consumer| consumer.held)),
        number(consumer.map(|consumer| consumer.redelivered)),
        queue.oldest.map_or("-".to_owned(), age),
        size(queue.bytes()),
        if queue.is_full() {
            output.bad(&format!("{limit}, full"))
        } else {
            limit
        },
    ]
}

fn line(queue: &QueueState) -> Value {
    let consumer = queue.consumer.as_ref();
    json!({
        "model": queue.model,
        "lane": queue.lane,
        "jobs": queue.jobs,
        "waiting": consumer.map(|consumer| consumer.waiting),
        "held": consumer.map(|consumer| consumer.held),
        "redelivered": consumer.map(|consumer| consumer.redelivered),
        "oldest_unix_ms": queue.oldest.map(unix_ms),
        "bytes_about": queue.bytes(),
        "limit_jobs": queue.stream.max_jobs_per_queue,
        "full": queue.is_full(),
        "consumer": consumer.map(|consumer| &consumer.name),
        "pulls": consumer.map(|consumer| consumer.pulls),
        "last_delivered_unix_ms": consumer.and_then(|consumer| consumer.last_delivered).map(unix_ms),
        "stream": {
            "name": queue.stream.name,
            "jobs": queue.stream.jobs,
            "bytes": queue.stream.bytes,
            "limit_bytes": queue.stream.max_bytes,
        },
    })
}

fn details(queue: &QueueState, output: &Output) -> String {
    let mut lines = vec![output.heading(&format!("{} {}", queue.model, queue.lane))];
    let mut put = |label: &str, text: String| lines.push(format!("  {label:<12}{text}"));
    put(
        "jobs",
        format!("{}, about {}", queue.jobs, size(queue.bytes())),
    );
    if let Some(oldest) = queue.oldest {
        put("oldest", format!("{} ago", age(oldest)));
    }
    match &queue.consumer {
        Some(consumer) => {
            put("waiting", consumer.waiting.to_string());
            put("held", format!("{} by workers", consumer.held));
            put("redelivered", consumer.redelivered.to_string());
            let last = consumer
                .last_delivered
                .map_or("none yet".to_owned(), |last| {
                    format!("the last {} ago", age(last))
                });
            put("delivered", last);
            put("pulls", format!("{} wait for a job", consumer.pulls));
            put("consumer", consumer.name.clone());
        }
        None => put(
            "consumer",
            "none: the model is not known, so nobody takes these jobs".to_owned(),
        ),
    }
    let limits = [
        queue
            .stream
            .max_jobs_per_queue
            .map(|most| format!("{most} jobs of this queue")),
        queue.stream.max_bytes.map(|most| {
            format!(
                "{} in {}, which has {}",
                size(most),
                queue.stream.name,
                size(queue.stream.bytes)
            )
        }),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    if !limits.is_empty() {
        put("refused at", limits.join(", or at "));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferq::queue::{ConsumerState, StreamState};
    use std::time::SystemTime;

    fn queue(consumer: Option<ConsumerState>) -> QueueState {
        QueueState {
            model: "digits".to_owned(),
            lane: Lane::Low,
            jobs: 3,
            oldest: Some(SystemTime::now()),
            consumer,
            stream: StreamState {
                name: "INFER_BULK".to_owned(),
                jobs: 6,
                bytes: 4_096,
                max_bytes: Some(512 << 20),
                max_jobs_per_queue: Some(3),
            },
        }
    }

    #[test]
    fn a_queue_nobody_takes_from_and_one_that_is_full_are_said_to_be_so() {
        let row = row(&queue(None), &Output::new(false));
        let expected = [
            "digits",
            "low",
            "3, unknown model",
            "-",
            "-",
            "-",
            "0s",
            "2.0 KiB",
            "3, full",
        ];
        assert_eq!(row, expected);
        let details = details(&queue(None), &Output::new(false));
        assert!(details.contains("nobody takes these jobs"), "{details}");
        assert!(
            details.contains("3 jobs of this queue, or at 512.0 MiB"),
            "{details}"
        );
    }
}
