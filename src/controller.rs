//! L5. The controller: objects of a cluster in, objects for Envoy Gateway and configurations for processors out.
//!
//! ```text
//! API server ─► watch ─► Store ─► View ─► compilation (pure) ─┬─► rollout ─► feed ─► processors
//!      ▲                              │                       └─► plan, status, finalizers (pure)
//!      └────────── apply ◄────────────┴── only while `lease` says so ◄──────────────────┘
//! ```
//!
//! Every replica watches, compiles and knows; only the one that holds the Lease writes. What decides has no I/O: `lease` is told what was
//! read and when, `rollout` what Envoy Gateway and the processors have taken, `plan` and `status` compare what is with what shall be.

mod apply;
mod compilation;
mod conditions;
mod engine;
mod events;
mod feed;
mod finalizers;
mod health;
mod identity;
mod kinds;
mod lease;
mod metrics;
mod object;
mod options;
mod plan;
mod rollout;
mod secrets;
mod status;
mod store;
mod watch;
mod watches;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use options::Options;

use apply::Writer;
use compilation::Settings;
use engine::{Engine, State};
use events::Events;
use feed::Feed;
use health::Health;
use lease::{Leadership, Timing, elect};
use metrics::Metrics;
use rollout::Bounds;
use store::Store;
use watches::{Reach, Watches};

use crate::push::Publisher;

/// Runs until `stop`. Then the writes that are under way end, and the Lease is given back.
///
/// # Errors
/// What is wrong with the options, an address that cannot be listened on, or how to reach the API server is not known. That the API server
/// does not answer is none.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    options.check()?;
    let client = client(&options).await?;
    let (admin, stream) = (options.admin.bind()?, options.config_listen.bind()?);
    tracing::info!(admin = %admin.local(), namespace = options.system_namespace, "the controller starts");
    let (store, metrics) = (Arc::new(Store::default()), Arc::new(Metrics::new()?));
    let health = Health::new();
    let mut serving = JoinSet::new();
    serving.spawn(health::serve(admin, health.clone(), Arc::clone(&metrics)));
    let identity = identity()?;
    let resign = CancellationToken::new();
    let (leadership, election) = leadership(&options, &client, &identity, &resign);
    let (mut standing, mut working) = (JoinSet::new(), JoinSet::new());
    standing.spawn(election);
    let namespaces: BTreeSet<String> = options.watch_namespaces.iter().cloned().collect();
    let reach = Reach {
        system_namespace: options.system_namespace.clone(),
        namespaces: Some(namespaces).filter(|namespaces| !namespaces.is_empty()),
    };
    let writer = Writer {
        client: client.clone(),
        store: Arc::clone(&store),
        leadership,
        metrics: Arc::clone(&metrics),
    };
    let keeping = identity::keep(writer.clone(), options.system_namespace.clone(), stop.clone());
    working.spawn(keeping.map(Ok));
    let publisher = Publisher::default();
    let served = feed::serve(
        (publisher.clone(), stream),
        Arc::clone(&store),
        options.system_namespace.clone(),
        stop.clone(),
    );
    working.spawn(served);
    let engine = Engine {
        watches: Watches::start(client.clone(), store, metrics, &reach, &identity::NAMES),
        feed: Feed::new(publisher),
        events: Events::new(client, identity),
        health,
        settings: Settings {
            system_namespace: options.system_namespace.clone(),
            root_prefix: options.root_prefix.clone(),
            selector: options.selector(),
            port: options.extproc_port,
        },
        bounds: Bounds { wait: options.rollout_bound.0, grace: options.rollout_grace.0, ..Bounds::default() },
        state: State::default(),
        writer,
    };
    let running = engine.run(stop);
    working.spawn(running.map(Ok));
    while let Some(ended) = working.join_next().await {
        ended.context("a part of the controller broke off")??;
    }
    // The Lease goes last, when nothing is written any more.
    resign.cancel();
    while standing.join_next().await.is_some() {}
    Ok(())
}

/// How the API server is reached.
async fn client(options: &Options) -> anyhow::Result<Client> {
    let mut config = match &options.kubeconfig {
        Some(path) => {
            let kubeconfig =
                Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("--kubeconfig {}", path.display()))?
        }
        None => Config::infer()
            .await
            .context("neither a kubeconfig nor a ServiceAccount was found; name one with --kubeconfig")?,
    };
    // What is tried again, and when, is decided here, where it is known what has changed meanwhile.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(Client::try_from(config)?)
}

fn leadership(
    options: &Options,
    client: &Client,
    identity: &str,
    stop: &CancellationToken,
) -> (Leadership, futures_util::future::Either<impl Future<Output = ()> + use<>, std::future::Ready<()>>) {
    use futures_util::future::Either;
    if !options.leader_elect {
        return (Leadership::always(), Either::Right(std::future::ready(())));
    }
    let timing = Timing {
        duration: options.lease_duration.0,
        deadline: options.renew_deadline.0,
        retry: options.retry_period.0,
    };
    let leases = Api::namespaced(client.clone(), &options.system_namespace);
    let (leadership, election) =
        elect(leases, options.lease_name.clone(), (identity.to_owned(), timing), stop.clone());
    (leadership, Either::Left(election))
}

/// Nobody else's: the pod's name, and something random for every start.
fn identity() -> anyhow::Result<String> {
    let mut random = [0; 4];
    SystemRandom::new().fill(&mut random).map_err(|_| anyhow::anyhow!("no randomness"))?;
    let name = ["POD_NAME", "HOSTNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let mut identity = name.unwrap_or_else(|| "ai-gateway-controller".to_owned());
    identity.push('_');
    for byte in random {
        // Writing to a string does not fail.
        let _ = write!(identity, "{byte:02x}");
    }
    Ok(identity)
}

/// Now, as Kubernetes writes times.
fn timestamp() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
