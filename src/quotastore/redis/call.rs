//! Calls of the script, which does one or several steps at once.

use ::redis::{Arg, Cmd, ToRedisArgs, cmd};

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Reserve,
    Renew,
    Settle,
}

/// One step: the keys that it may touch, and its arguments as the script describes them.
pub(super) struct Step {
    /// Not commands, but buffers that are written once and copied once.
    keys: Cmd,
    arguments: Cmd,
    count: usize,
    complete: bool,
}

impl Step {
    pub(super) fn new(kind: Kind) -> Self {
        let letter = match kind {
            Kind::Reserve => "r",
            Kind::Renew => "n",
            Kind::Settle => "s",
        };
        let mut step = Self { keys: Cmd::new(), arguments: Cmd::new(), count: 0, complete: true };
        step.arg(letter);
        step
    }

    /// A key that it may touch: a cluster refuses a call as a whole where they are not all there.
    pub(super) fn key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        self.keys.arg(key);
        self
    }

    /// One argument.
    pub(super) fn arg(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        self.arguments.arg(argument);
        self.count += 1;
        self
    }

    /// It may touch keys that are not named.
    pub(super) fn may_touch_others(&mut self) {
        self.complete = false;
    }
}

/// The script, which the server may know by its digest.
pub(super) struct Script {
    code: String,
    digest: String,
}

impl Script {
    pub(super) fn new() -> Self {
        let code = [
            include_str!("common.lua"),
            include_str!("reserve.lua"),
            include_str!("renew.lua"),
            include_str!("settle.lua"),
            "return run({ r = reserve, n = renew, s = settle })",
        ]
        .join("\n");
        let digest = ::redis::Script::new(&code).get_hash().to_owned();
        Self { code, digest }
    }
}

/// One call of it: its steps are done one after the other and all at once.
pub(super) struct Call<'a> {
    pub(super) script: &'a Script,
    /// In milliseconds; 0: the server's.
    pub(super) clock: u64,
    /// What all keys begin with.
    pub(super) prefix: &'a str,
    pub(super) steps: Vec<&'a Step>,
}

impl Call<'_> {
    /// Whether it may be done by the server that is getting a slot while it is being moved. There a key that is still to come looks
    /// like one that does not exist, unless it is named.
    pub(super) fn may_follow(&self) -> bool {
        self.steps.iter().all(|step| step.complete)
    }

    /// By its digest.
    pub(super) fn short(&self) -> Cmd {
        self.command("EVALSHA", &self.script.digest)
    }

    /// With the script itself, which the server knows from then on.
    pub(super) fn whole(&self) -> Cmd {
        self.command("EVAL", &self.script.code)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = cmd(name);
        let keys: usize = self.steps.iter().map(|step| step.keys.args_iter().count()).sum();
        command.arg(script).arg(keys);
        for step in &self.steps {
            copy(&step.keys, &mut command);
        }
        command.arg(self.clock).arg(self.prefix);
        for step in &self.steps {
            command.arg(step.count);
            copy(&step.arguments, &mut command);
        }
        command
    }
}

fn copy(from: &Cmd, to: &mut Cmd) {
    for argument in from.args_iter() {
        if let Arg::Simple(bytes) = argument {
            to.arg(bytes);
        }
    }
}
