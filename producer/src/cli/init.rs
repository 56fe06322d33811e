//! `inferq init`: makes streams, buckets and consumers.

use std::path::PathBuf;

use anyhow::bail;
use inferq::{
    AssetPlan, ModelName,
    assets::{AssetChange, Change},
    stack::models_in,
};
use serde_json::json;

use super::{Ended, Global, output::Output};

/// Make streams, buckets and consumers on a NATS server; does nothing the second time.
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// Make every model in this folder known.
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Make this model known; may be repeated.
    #[arg(long = "model", value_name = "NAME")]
    names: Vec<ModelName>,
    #[command(flatten)]
    plan: AssetPlan,
}

impl Init {
    pub(super) async fn run(self, global: &Global, output: &Output) -> anyhow::Result<Ended> {
        let mut models = self.names;
        if let Some(folder) = &self.models {
            if !folder.is_dir() {
                bail!(
                    "the models folder {} does not exist; name another with --models",
                    folder.display()
                );
            }
            models.extend(models_in(folder).into_keys());
        }
        let client = global.connect().await?;
        let cost = self.plan.cost_of_results();
        let admin = client.admin(self.plan);
        let mut rows = Vec::new();
        let mut without = Vec::new();
        let mut show = |change: &AssetChange| -> anyhow::Result<()> {
            let what = change.change.to_string();
            if output.is_json() {
                output.line(
                    &json!({ "asset": change.asset, "change": what, "without": change.without }),
                )?;
            }
            for field in &change.without {
                without.push(format!("{field} of {}", change.asset));
            }
            let what = match change.change {
                Change::Unchanged => what,
                Change::Created | Change::Updated(_) => output.good(&what),
            };
            rows.push(vec![change.asset.clone(), what]);
            Ok(())
        };
        for change in admin.init().await? {
            show(&change)?;
        }
        for model in &models {
            for change in admin.ensure_model(model).await? {
                show(&change)?;
            }
        }
        if !output.is_json() {
            output.table(&["asset", "change"], rows);
            output.note(&cost);
            if !without.is_empty() {
                output.note(&format!(
                    "this server, version {}, does not know {}; a newer one does",
                    client.nats().server_info().version,
                    without.join(", ")
                ));
            }
            if models.is_empty() {
                output.note("no model is known yet: run `inferq init --models DIR`");
            }
        }
        Ok(Ended::Well)
    }
}
