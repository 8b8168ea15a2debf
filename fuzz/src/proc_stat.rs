//! The texts of `/proc` that identity rests on: `status`, `fdinfo` of a pidfd,
//! `uid_map`, `overflowuid`.
//!
//! - No text is misread: each answer is that of a second reader, written another way.
//! - What the kernel would print for any value is read back as that value.

use secure_socket::proc::{
    PidfdState, capabilities, covers_all_ids, has_capability, overflow_id, pidfd_state,
};

pub fn check(data: &[u8]) {
    check_pidfd(data);
    check_capabilities(data);
    assert_eq!(covers_all_ids(data), covers(data));
    let number = std::str::from_utf8(data).ok();
    let number = number.map(|text| text.strip_suffix('\n').unwrap_or(text));
    let number = number.filter(|text| text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit()));
    assert_eq!(overflow_id(data), number.and_then(|text| text.parse().ok()));
    if let Some((bytes, _)) = data.split_first_chunk::<8>() {
        check_printed(u64::from_le_bytes(*bytes));
    }
}

fn check_pidfd(text: &[u8]) {
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let count = lines
        .iter()
        .filter(|line| line.starts_with(b"Pid:"))
        .count();
    match pidfd_state(text) {
        None => {}
        Some(state) => {
            assert_eq!(count, 1, "one line and no other says it");
            let number = match state {
                PidfdState::Pid(pid) => pid.as_raw(),
                PidfdState::Gone => -1,
                PidfdState::NotVisible => 0,
            };
            let line = lines.iter().find(|line| line.starts_with(b"Pid:"));
            let text = String::from_utf8_lossy(line.expect("counted above"));
            assert_eq!(
                text[4..].trim(),
                number.to_string(),
                "read as it is written"
            );
        }
    }
}

/// Capabilities that the programs ask for, and those at the edges: each question
/// reads the whole text anew.
const NUMBERS: [u8; 8] = [0, 6, 7, 19, 63, 64, 65, 255];

fn check_capabilities(text: &[u8]) {
    let Some(sets) = capabilities(text) else {
        assert!(NUMBERS.iter().all(|number| !has_capability(text, *number)));
        return;
    };
    for number in NUMBERS {
        let is_set = number < 64 && sets.effective >> number & 1 == 1;
        assert_eq!(has_capability(text, number), is_set);
    }
    for (key, value) in [("CapEff:", sets.effective), ("CapPrm:", sets.permitted)] {
        let line = text
            .split(|byte| *byte == b'\n')
            .find(|line| line.starts_with(key.as_bytes()))
            .expect("it was read from there");
        let digits = String::from_utf8_lossy(&line[key.len()..])
            .trim()
            .to_owned();
        assert!(
            digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{digits}"
        );
        assert_eq!(u64::from_str_radix(&digits, 16), Ok(value));
    }
}

/// The same question, by the points where coverage could end.
fn covers(map: &[u8]) -> Option<bool> {
    let mut ranges = Vec::new();
    for line in map
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let text = std::str::from_utf8(line).ok()?;
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        let numbers: Option<Vec<u64>> = words
            .iter()
            .map(|word| {
                let plain = word.len() <= 10 && word.bytes().all(|byte| byte.is_ascii_digit());
                plain.then(|| word.parse().ok()).flatten()
            })
            .collect();
        let [_, outside, length] = numbers?[..] else {
            return None;
        };
        ranges.push((outside, outside + length));
    }
    let is_covered = |id: u64| ranges.iter().any(|(from, to)| (*from..*to).contains(&id));
    let ends = ranges
        .iter()
        .map(|(_, to)| *to)
        .filter(|to| *to < 4_294_967_295);
    Some(is_covered(0) && ends.into_iter().all(is_covered))
}

fn check_printed(value: u64) {
    let status = format!(
        "Name:\tx\nCapPrm:\t{value:016x}\nCapEff:\t{:016x}\n",
        !value
    );
    let sets = capabilities(status.as_bytes()).expect("as the kernel prints it");
    assert_eq!((sets.permitted, sets.effective), (value, !value));
    let pid = i32::from_le_bytes(std::array::from_fn(|i| value.to_le_bytes()[i]));
    let state = pidfd_state(format!("pos:\t0\nPid:\t{pid}\nNSpid:\t{pid}\n").as_bytes());
    match pid {
        ..-1 => assert_eq!(state, None),
        -1 => assert_eq!(state, Some(PidfdState::Gone)),
        0 => assert_eq!(state, Some(PidfdState::NotVisible)),
        _ => assert!(matches!(state, Some(PidfdState::Pid(p)) if p.as_raw() == pid)),
    }
}
