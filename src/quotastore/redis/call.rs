//! Calls of scripts.

use ::redis::{Cmd, Script, ToRedisArgs, cmd};

/// A script that the server may know by its digest.
pub(super) struct Step {
    code: String,
    digest: String,
}

impl Step {
    pub(super) fn new(own: &str) -> Self {
        let code = format!("{}\n{own}", include_str!("common.lua"));
        let digest = Script::new(&code).get_hash().to_owned();
        Self { code, digest }
    }

    pub(super) fn call(&self) -> Call<'_> {
        Call { step: self, keys: Vec::new(), arguments: Vec::new(), complete: true }
    }
}

/// One call of it. The keys that it may touch are named, so that a cluster refuses it as a whole where they are not all there.
pub(super) struct Call<'a> {
    step: &'a Step,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
    complete: bool,
}

impl Call<'_> {
    pub(super) fn key(&mut self, key: String) -> &mut Self {
        self.keys.push(key);
        self
    }

    pub(super) fn arg(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        argument.write_redis_args(&mut self.arguments);
        self
    }

    /// It may touch keys that are not named.
    pub(super) fn may_touch_others(&mut self) {
        self.complete = false;
    }

    /// Whether it may be done by the server that is getting a slot while it is being moved. There a key that is still to come looks
    /// like one that does not exist, unless it is named.
    pub(super) fn may_follow(&self) -> bool {
        self.complete
    }

    /// By its digest.
    pub(super) fn short(&self) -> Cmd {
        self.command("EVALSHA", &self.step.digest)
    }

    /// With the script itself, which the server knows from then on.
    pub(super) fn whole(&self) -> Cmd {
        self.command("EVAL", &self.step.code)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = cmd(name);
        command.arg(script).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        for argument in &self.arguments {
            command.arg(argument.as_slice());
        }
        command
    }
}
