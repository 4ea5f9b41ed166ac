//! One container: a process on a root of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Probe, Secret};
use kube::{Api, ResourceExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::pod::{Place, field};
use super::{Image, probe};
use crate::support::network::LOOK;

/// What is told of a container.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) runs: bool,
    pub(super) started: bool,
    pub(super) ready: bool,
    pub(super) restarts: u32,
    /// For good.
    pub(super) exit: Option<i32>,
    pub(super) waits_for: String,
}

/// Builds a root in memory and starts the process on it. What it is made of comes as variables: see [`Prepared::spawn`].
const ROOT: &str = r#"
mkdir -p "$R" && mount -t tmpfs -o mode=755 tmpfs "$R"
for d in bin sbin lib lib64; do
  if [ -L /$d ]; then ln -s "$(readlink /$d)" "$R/$d"; elif [ -d /$d ]; then mkdir "$R/$d"; mount --bind -o ro /$d "$R/$d"; fi
done
mkdir -p "$R/usr" "$R/dev" "$R/proc" "$R/app" "$R/etc/ssl/certs" "$R/var/run" "$R/run"
mkdir -m 1777 "$R/tmp"
mount --rbind /usr "$R/usr"; mount --rbind /dev "$R/dev"; mount --rbind /proc "$R/proc"
mount -t tmpfs -o mode=1777 tmpfs "$R/dev/shm"
printf 'root:x:0:0::/:/bin/false\nnonroot:x:65532:65532::/tmp:/bin/false\n' >"$R/etc/passwd"
printf 'hosts: files dns\n' >"$R/etc/nsswitch.conf"
printf '127.0.0.1 localhost\n%s %s\n' "$ADDRESS" "$NAME" >"$R/etc/hosts"
printf 'nameserver %s\nsearch %s.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 attempts:1\n' \
  "$SERVER" "$NAMESPACE" >"$R/etc/resolv.conf"
cp "$AUTHORITIES" "$R/etc/ssl/certs/ca-certificates.crt"
touch "$R/app/$FILE" && mount --bind -o ro "$EXECUTABLE" "$R/app/$FILE"
printf '%s\n' "$MOUNTS" | while IFS='|' read -r from to mode; do
  [ -n "$from" ] || continue
  if [ -d "$from" ]; then mkdir -p "$R$to"; else mkdir -p "$(dirname "$R$to")"; touch "$R$to"; fi
  mount --bind "$from" "$R$to"
  if [ "$mode" = ro ]; then mount -o remount,bind,ro "$R$to"; fi
done
if [ -n "$READONLY" ]; then mount -o remount,ro "$R"; fi
exec chroot "$R" /usr/bin/env -i -C "$FOLDER" "$@"
"#;

/// Runs it, again and again unless the pod says otherwise, until the pod ends.
pub(super) async fn run(
    place: Arc<Place>,
    container: Container,
    index: usize,
    states: watch::Sender<Vec<State>>,
    mut ending: watch::Receiver<bool>,
) {
    let tell = |change: &dyn Fn(&mut State)| states.send_modify(|states| change(&mut states[index]));
    let policy = place.pod.spec.as_ref().and_then(|spec| spec.restart_policy.clone()).unwrap_or_default();
    loop {
        let prepared = loop {
            match Prepared::new(&place, &container).await {
                Ok(prepared) => break prepared,
                Err(reason) if *ending.borrow() => return tell(&|state| state.waits_for.clone_from(&reason)),
                Err(reason) => tell(&|state| state.waits_for.clone_from(&reason)),
            }
            tokio::time::sleep(LOOK).await;
        };
        let mut child = prepared.spawn(&place, &container);
        tell(&|state| state.runs = true);
        let asked = probes(&container, &place, |started, ready| {
            states.send_if_modified(|states| {
                let state = &mut states[index];
                let changed = (state.started, state.ready) != (started, ready);
                (state.started, state.ready) = (started, ready);
                changed
            });
        });
        let status = tokio::select! {
            status = child.wait() => Some(status.expect("a child")),
            () = asked => None,
            _ = ending.wait_for(|ending| *ending) => None,
        };
        tell(&|state| (state.runs, state.ready, state.started) = (false, false, false));
        let code = match status {
            Some(status) => status.code().unwrap_or(137),
            None => stop(&mut child, &place).await,
        };
        if *ending.borrow() {
            return tell(&|state| state.exit = Some(code));
        }
        if policy == "Never" || (policy == "OnFailure" && code == 0) {
            return tell(&|state| state.exit = Some(code));
        }
        tell(&|state| {
            state.restarts += 1;
            state.waits_for = format!("it ended with {code}");
        });
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
    }
}

/// Tells what the probes say. Ends when the process is to be started anew.
async fn probes(container: &Container, place: &Place, mut tell: impl FnMut(bool, bool)) {
    let ask = async |probe: &Option<Probe>| match probe {
        Some(probe) => Some(probe::ask(probe, container, place.address).await),
        None => None,
    };
    let limit = |probe: &Option<Probe>| probe.as_ref().and_then(|probe| probe.failure_threshold).unwrap_or(3);
    let mut failures = 0;
    while ask(&container.startup_probe).await == Some(false) {
        failures += 1;
        if failures >= limit(&container.startup_probe).max(60) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (mut dead, mut unready) = (0, limit(&container.readiness_probe));
    loop {
        dead = if ask(&container.liveness_probe).await == Some(false) { dead + 1 } else { 0 };
        // As in a cluster, a process has some time before it counts as dead, whatever its probe's first answers are.
        if dead >= limit(&container.liveness_probe) + 20 {
            return;
        }
        unready = if ask(&container.readiness_probe).await == Some(false) { unready + 1 } else { 0 };
        tell(true, unready < limit(&container.readiness_probe));
        let pause = if unready > 0 { 200 } else { 1000 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// As a pod's end: politely, and then not.
async fn stop(child: &mut Child, place: &Place) -> i32 {
    let grace = place
        .pod
        .metadata
        .deletion_grace_period_seconds
        .or_else(|| place.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds));
    if let Some(pid) = child.id() {
        _ = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
    }
    // Pods of Envoy may ask for many minutes; nothing is left to wait for.
    let grace = Duration::from_secs(u64::try_from(grace.unwrap_or(30)).unwrap_or(0).min(10));
    if let Ok(status) = tokio::time::timeout(grace, child.wait()).await {
        return status.expect("a child").code().unwrap_or(143);
    }
    child.kill().await.expect("kill");
    137
}

/// What a process is started with.
struct Prepared {
    image: Image,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    mounts: Vec<String>,
}

impl Prepared {
    /// Everything that can be missing; an error says what is.
    async fn new(place: &Place, container: &Container) -> Result<Self, String> {
        place.volumes.write(&place.pod).await?;
        let reference = container.image.clone().unwrap_or_default();
        let name = reference.rsplit('/').next().unwrap_or_default();
        let name = name.split(['@', ':']).next().unwrap_or_default();
        let image = place.shared.images.iter().find(|image| image.name == name);
        let image = image.ok_or_else(|| format!("nothing stands for the image {reference}"))?.clone();
        let environment = environment(place, container).await?;
        let mut words = container
            .command
            .clone()
            .unwrap_or_else(|| image.entrypoint.iter().map(|word| (*word).to_owned()).collect());
        words.extend(container.args.clone().unwrap_or_default());
        let arguments = words.iter().map(|word| expand(word, &environment)).collect();
        let mounts = container.volume_mounts.iter().flatten().map(|mount| {
            let from = place.volumes.path(&mount.name);
            let from = mount.sub_path.as_ref().map_or_else(|| from.clone(), |path| from.join(path));
            let mode = if mount.read_only == Some(true) { "ro" } else { "rw" };
            format!("{}|{}|{mode}", from.display(), mount.mount_path)
        });
        Ok(Self { image, arguments, environment, mounts: mounts.collect() })
    }

    fn spawn(self, place: &Place, container: &Container) -> Child {
        let folder = &place.folder;
        let log = folder.with_file_name(format!(
            "{}_{}.log",
            folder.file_name().unwrap_or_default().to_string_lossy(),
            container.name
        ));
        let log = File::options().create(true).append(true).open(log).expect("a log");
        // Envoy opens `/dev/stdout` anew, as a user who is not this one.
        log.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("its mode");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", place.network));
        command.args(["unshare", "--mount", "--propagation", "private", "sh", "-ec", ROOT, "sh"]);
        command.args(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.args(confinement(place, container)).args(&self.arguments);
        let read_only =
            container.security_context.as_ref().and_then(|context| context.read_only_root_filesystem);
        command
            .env("R", folder.join(format!("{}.root", container.name)))
            .env("ADDRESS", place.address.to_string())
            .env("NAME", place.pod.name_any())
            .env("NAMESPACE", place.pod.namespace().unwrap_or_default())
            .env("SERVER", crate::support::apiserver::NODE)
            .env("AUTHORITIES", &place.shared.authorities)
            .env("EXECUTABLE", &self.image.executable)
            .env("FILE", file_name(&self.image.executable))
            .env("MOUNTS", self.mounts.join("\n"))
            .env("READONLY", if read_only == Some(true) { "1" } else { "" })
            .env("FOLDER", container.working_dir.as_deref().unwrap_or("/"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).kill_on_drop(true);
        let child = command.spawn().expect("a process");
        let pid = folder.join(format!("{}.pid", container.name));
        std::fs::write(pid, child.id().expect("a child").to_string()).expect("write");
        child
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("an executable")
}

/// The user and the rights that the security contexts leave, as arguments in front of the command.
fn confinement(place: &Place, container: &Container) -> Vec<String> {
    let of_pod = place.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let user = own.and_then(|own| own.run_as_user).or_else(|| of_pod.and_then(|pod| pod.run_as_user));
    let group = own.and_then(|own| own.run_as_group).or_else(|| of_pod.and_then(|pod| pod.run_as_group));
    let non_root =
        own.and_then(|own| own.run_as_non_root).or_else(|| of_pod.and_then(|pod| pod.run_as_non_root));
    // The images of these tests run as this user where nothing is said.
    let user = user.unwrap_or(65532);
    assert!(user != 0 || non_root != Some(true), "{} asks to be root and not to be", container.name);
    let groups = of_pod
        .and_then(|pod| pod.fs_group)
        .map_or_else(|| "--clear-groups".to_owned(), |group| format!("--groups={group}"));
    let mut words = vec!["/usr/bin/setpriv".to_owned(), format!("--reuid={user}")];
    words.extend([format!("--regid={}", group.unwrap_or(user)), groups]);
    words.push("--inh-caps=-all".to_owned());
    if own.and_then(|own| own.allow_privilege_escalation) == Some(false) {
        words.push("--no-new-privs".to_owned());
    }
    let dropped = own.and_then(|own| own.capabilities.as_ref()?.drop.as_ref());
    if dropped.is_some_and(|dropped| dropped.iter().any(|name| name == "ALL")) {
        words.push("--bounding-set=-all".to_owned());
    }
    words
}

async fn environment(place: &Place, container: &Container) -> Result<BTreeMap<String, String>, String> {
    let mut environment = BTreeMap::from(
        [
            ("PATH", "/app:/usr/local/bin:/usr/bin:/bin"),
            ("HOME", "/"),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    environment.insert("HOSTNAME".to_owned(), place.pod.name_any());
    for variable in container.env.iter().flatten() {
        let value = match &variable.value {
            Some(value) => Some(expand(value, &environment)),
            None => referenced(place, variable).await?,
        };
        environment.insert(variable.name.clone(), value.unwrap_or_default());
    }
    Ok(environment)
}

async fn referenced(place: &Place, variable: &EnvVar) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else { return Ok(None) };
    let namespace = place.pod.namespace().unwrap_or_default();
    if let Some(reference) = &from.field_ref {
        if matches!(reference.field_path.as_str(), "status.podIP" | "status.podIPs") {
            return Ok(Some(place.address.to_string()));
        }
        let value = field(&place.pod, &reference.field_path);
        return value
            .map(Some)
            .ok_or_else(|| format!("{} is not known to the stand-in", reference.field_path));
    }
    if let Some(reference) = &from.secret_key_ref {
        let secrets: Api<Secret> = Api::namespaced(place.shared.client.clone(), &namespace);
        let found = secrets.get_opt(&reference.name).await.map_err(|error| error.to_string())?;
        let value = found.and_then(|secret| secret.data?.remove(&reference.key));
        let text = value.map(|value| String::from_utf8_lossy(&value.0).into_owned());
        return present(text, &reference.name, reference.optional);
    }
    if let Some(reference) = &from.config_map_key_ref {
        let maps: Api<ConfigMap> = Api::namespaced(place.shared.client.clone(), &namespace);
        let found = maps.get_opt(&reference.name).await.map_err(|error| error.to_string())?;
        let text = found.and_then(|map| map.data?.remove(&reference.key));
        return present(text, &reference.name, reference.optional);
    }
    // Resource limits: none are set here.
    Ok(None)
}

fn present(value: Option<String>, name: &str, optional: Option<bool>) -> Result<Option<String>, String> {
    if value.is_none() && optional != Some(true) {
        return Err(format!("an environment variable of {name} is missing"));
    }
    Ok(value)
}

/// `$(NAME)` is the variable's value; `$$` is a dollar sign; names that are not known stay as they are.
fn expand(text: &str, environment: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        let reference = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')'));
        if let Some(after) = rest.strip_prefix("$$") {
            expanded.push('$');
            rest = after;
        } else if let Some((value, after)) =
            reference.and_then(|(name, after)| Some((environment.get(name)?, after)))
        {
            expanded.push_str(value);
            rest = after;
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded + rest
}
