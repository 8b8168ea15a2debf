//! Compiles the seccomp filters of this folder into constants of the library,
//! so that no parser and no compiler of filters is part of the programs.
//!
//! Fails the build if a system call is misspelt or has another number than in
//! `calls.txt`, if a rule lacks a comment, if a filter lists a call both with
//! and without conditions (seccompiler would silently drop the latter), if
//! groups are left over, or if there are no filters for the target.

#[cfg(feature = "sandbox")]
mod filters {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;
    use std::path::Path;
    use std::{env, fs};

    use seccompiler::{BpfProgram, TargetArch, compile_from_json};
    use serde_json::{Map, Value, json};

    type Outcome<T> = Result<T, String>;

    const ARCHITECTURES: [(&str, TargetArch); 2] = [
        ("x86_64", TargetArch::x86_64),
        ("aarch64", TargetArch::aarch64),
    ];

    /// Compiles for every architecture, whichever is the target: a mistake in
    /// one must not wait for somebody who builds for it.
    pub(super) fn compile() -> Outcome<()> {
        let target = env::var("CARGO_CFG_TARGET_ARCH").map_err(|error| error.to_string())?;
        let out = env::var("OUT_DIR").map_err(|error| error.to_string())?;
        if !ARCHITECTURES.iter().any(|(name, _)| *name == target) {
            return Err(format!(
                "no seccomp filters for {target}: write seccomp/{target}.json, or build without the feature sandbox"
            ));
        }
        let names = read("calls.txt")?;
        for (column, (name, arch)) in ARCHITECTURES.into_iter().enumerate() {
            let numbers = numbers(&names, column)?;
            let source = compile_architecture(name, arch, &numbers)
                .map_err(|error| format!("seccomp/{name}.json: {error}"))?;
            let file = Path::new(&out).join(format!("filters_{name}.rs"));
            fs::write(&file, source).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn read(name: &str) -> Outcome<String> {
        let path = Path::new("seccomp").join(name);
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The table of one architecture: its column of `calls.txt`.
    fn numbers(text: &str, column: usize) -> Outcome<BTreeMap<&str, u32>> {
        let mut table = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_ascii_whitespace();
            let (Some(name), Some(number)) = (words.next(), words.nth(column)) else {
                return Err(format!("seccomp/calls.txt: malformed line {line:?}"));
            };
            if let Ok(number) = number.parse() {
                table.insert(name, number);
            }
        }
        Ok(table)
    }

    fn compile_architecture(
        name: &str,
        arch: TargetArch,
        numbers: &BTreeMap<&str, u32>,
    ) -> Outcome<String> {
        let file: Value =
            serde_json::from_str(&read(&format!("{name}.json"))?).map_err(|e| e.to_string())?;
        let groups = Groups::parse(field(&file, "groups"))?;
        let filters = field(&file, "filters")
            .as_object()
            .ok_or("filters: expected an object")?;
        let mut programs = BTreeMap::new();
        for (filter, spec) in filters {
            let composed = groups.compose(filter, spec, filters)?;
            check_numbers(arch, &composed, numbers)?;
            programs.insert(
                filter.as_str(),
                compile_filter(arch, filter, spec, composed)?,
            );
        }
        groups.check_all_used(filters)?;
        Ok(render(&programs, numbers))
    }

    struct Groups<'a>(BTreeMap<&'a str, &'a [Value]>);

    impl<'a> Groups<'a> {
        fn parse(value: &'a Value) -> Outcome<Self> {
            let mut groups = BTreeMap::new();
            for (name, group) in value.as_object().ok_or("groups: expected an object")? {
                if !has_comment(group) {
                    return Err(format!("group {name}: has no comment"));
                }
                let rules = group["rules"]
                    .as_array()
                    .ok_or(format!("group {name}: has no rules"))?;
                for rule in rules {
                    check_rule(rule).map_err(|error| format!("group {name}: {error}"))?;
                }
                groups.insert(name.as_str(), rules.as_slice());
            }
            Ok(Self(groups))
        }

        /// The rules of all groups of a filter, each once.
        fn compose(
            &self,
            name: &str,
            spec: &Value,
            filters: &Map<String, Value>,
        ) -> Outcome<Vec<Value>> {
            if field(spec, "purpose").as_str().is_none_or(str::is_empty) {
                return Err(format!("filter {name}: has no purpose"));
            }
            let mut rules: Vec<Value> = Vec::new();
            for group in strings(field(spec, "groups")) {
                let group = self
                    .0
                    .get(group)
                    .ok_or(format!("filter {name}: no group {group}"))?;
                rules.extend(group.iter().map(without_reason));
            }
            check_unambiguous(name, &rules)?;
            // A union is as wide as its widest member, so an unconditional rule
            // takes the place of conditional ones.
            for member in strings(field(spec, "union")) {
                let spec = filters
                    .get(member)
                    .ok_or(format!("filter {name}: no filter {member}"))?;
                rules.extend(self.compose(member, spec, filters)?);
            }
            let free: BTreeSet<String> = rules
                .iter()
                .filter(|rule| !is_conditional(rule))
                .map(call)
                .collect();
            let mut seen = BTreeSet::new();
            rules.retain(|rule| {
                let widened = is_conditional(rule) && free.contains(&call(rule));
                !widened && seen.insert(identity(rule))
            });
            Ok(rules)
        }

        fn check_all_used(&self, filters: &Map<String, Value>) -> Outcome<()> {
            let used: BTreeSet<&str> = filters
                .values()
                .flat_map(|spec| strings(field(spec, "groups")))
                .collect();
            match self.0.keys().find(|group| !used.contains(*group)) {
                Some(group) => Err(format!("group {group}: no filter uses it")),
                None => Ok(()),
            }
        }
    }

    /// A member of an object; null if there is none.
    fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
        value.get(name).unwrap_or(&Value::Null)
    }

    fn strings(value: &Value) -> Vec<&str> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    fn has_comment(value: &Value) -> bool {
        field(value, "comment")
            .as_str()
            .is_some_and(|text| !text.trim().is_empty())
    }

    /// Why a trace doesn't see the call: a text, or one for each filter.
    fn is_reason(why: &Value) -> bool {
        let is_text = |text: &Value| text.as_str().is_some_and(|text| !text.trim().is_empty());
        match why {
            Value::Object(filters) => !filters.is_empty() && filters.values().all(is_text),
            other => is_text(other),
        }
    }

    fn call(rule: &Value) -> String {
        field(rule, "syscall")
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn is_conditional(rule: &Value) -> bool {
        rule.get("args").is_some()
    }

    /// A rule as the compiler takes it: why a trace doesn't see it is for readers.
    fn without_reason(rule: &Value) -> Value {
        let mut rule = rule.clone();
        if let Some(rule) = rule.as_object_mut() {
            rule.remove("unseen");
        }
        rule
    }

    /// What makes a rule the same as another: all but the comments.
    fn identity(rule: &Value) -> String {
        let conditions: Vec<String> = field(rule, "args")
            .as_array()
            .into_iter()
            .flatten()
            .map(|c| {
                format!(
                    "{} {} {} {}",
                    field(c, "index"),
                    field(c, "type"),
                    field(c, "op"),
                    field(c, "val")
                )
            })
            .collect();
        format!("{} {}", call(rule), conditions.join(", "))
    }

    fn check_rule(rule: &Value) -> Outcome<()> {
        let call = call(rule);
        if call.is_empty() {
            return Err(format!("rule without a call: {rule}"));
        }
        if !has_comment(rule) {
            return Err(format!(
                "{call}: the rule has no comment that names its caller"
            ));
        }
        if rule.get("unseen").is_some_and(|why| !is_reason(why)) {
            return Err(format!(
                "{call}: unseen: expected a reason, or one for each filter"
            ));
        }
        for condition in field(rule, "args").as_array().into_iter().flatten() {
            if !has_comment(condition) {
                return Err(format!("{call}: a condition has no comment"));
            }
            // Of a dword's, seccompiler compares the lower half of what stands here.
            let too_wide = |number: &Value| number.as_u64().is_none_or(|n| n > u32::MAX.into());
            let mask = condition.pointer("/op/masked_eq");
            if field(condition, "type") == "dword"
                && mask
                    .into_iter()
                    .chain([field(condition, "val")])
                    .any(too_wide)
            {
                return Err(format!(
                    "{call}: a dword is compared with more than 32 bits"
                ));
            }
        }
        Ok(())
    }

    fn check_unambiguous(filter: &str, rules: &[Value]) -> Outcome<()> {
        let with: BTreeSet<String> = rules
            .iter()
            .filter(|rule| is_conditional(rule))
            .map(call)
            .collect();
        let without: BTreeSet<String> = rules
            .iter()
            .filter(|rule| !is_conditional(rule))
            .map(call)
            .collect();
        match with.intersection(&without).next() {
            Some(call) => Err(format!(
                "filter {filter}: {call} is listed with and without conditions"
            )),
            None => Ok(()),
        }
    }

    /// Two tables of numbers, of the compiler and of `calls.txt`, must agree.
    fn check_numbers(
        arch: TargetArch,
        rules: &[Value],
        numbers: &BTreeMap<&str, u32>,
    ) -> Outcome<()> {
        for name in rules.iter().map(call).collect::<BTreeSet<_>>() {
            let rule = vec![json!({ "syscall": name })];
            let program = compile_program(arch, "probe", json!("allow"), json!("trap"), rule)?;
            // After three instructions for the architecture and one that loads
            // the number stands the comparison with it.
            let found = program.get(4).map(|instruction| instruction.k);
            let expected = numbers.get(name.as_str()).copied();
            if found != expected || expected.is_none() {
                return Err(format!(
                    "{name}: number {found:?}, calls.txt has {expected:?}"
                ));
            }
        }
        Ok(())
    }

    /// A filter allows what it lists and kills for the rest; one with an
    /// `answer` gives that error for what it lists and allows the rest; one with
    /// a `refusal` allows what it lists and gives that error for the rest.
    fn compile_filter(
        arch: TargetArch,
        name: &str,
        spec: &Value,
        rules: Vec<Value>,
    ) -> Outcome<BpfProgram> {
        let errno = |value: &Value| value.as_u64().map(|errno| json!({ "errno": errno }));
        let answer = errno(field(spec, "answer"));
        let refusal = errno(field(spec, "refusal"));
        match (answer, refusal) {
            (Some(_), Some(_)) => Err(format!("filter {name}: both answer and refusal")),
            (Some(answer), None) => compile_program(arch, name, json!("allow"), answer, rules),
            (None, refusal) => {
                let otherwise = refusal.unwrap_or_else(|| json!("kill_process"));
                compile_program(arch, name, otherwise, json!("allow"), rules)
            }
        }
    }

    fn compile_program(
        arch: TargetArch,
        name: &str,
        otherwise: Value,
        matched: Value,
        rules: Vec<Value>,
    ) -> Outcome<BpfProgram> {
        let filter = json!({ name: { "mismatch_action": otherwise, "match_action": matched, "filter": rules } });
        let mut map = compile_from_json(filter.to_string().as_bytes(), arch)
            .map_err(|error| format!("filter {name}: {error}"))?;
        map.remove(name)
            .ok_or(format!("filter {name}: was not compiled"))
    }

    fn render(programs: &BTreeMap<&str, BpfProgram>, numbers: &BTreeMap<&str, u32>) -> String {
        let mut source = String::from("// Compiled from seccomp/*.json by seccomp/build.rs.\n");
        source.push_str("pub(super) static FILTERS: &[(&str, &[sock_filter])] = &[\n");
        for (name, program) in programs {
            let _ = writeln!(source, "({name:?}, &[");
            for i in program {
                let _ = writeln!(
                    source,
                    "sock_filter {{ code: {}, jt: {}, jf: {}, k: {} }},",
                    i.code, i.jt, i.jf, i.k
                );
            }
            source.push_str("]),\n");
        }
        source.push_str("];\npub(super) static CALLS: &[(u32, &str)] = &[\n");
        for (name, number) in numbers {
            let _ = writeln!(source, "({number}, {name:?}),");
        }
        source.push_str("];\n");
        source
    }
}

fn main() {
    println!("cargo::rerun-if-changed=seccomp");
    #[cfg(feature = "sandbox")]
    if let Err(error) = filters::compile() {
        println!("cargo::error={error}");
        std::process::exit(1);
    }
}
