//! When lines come faster than they are written: what is dropped, and that it
//! is stated. And that what a peer chose forges nothing.
#![cfg(feature = "logging")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod logging_support;

use log::Level;
use logging_support::{Front, TempDir, all_lines, message, start};
use secure_socket::logging::escape::{Untrusted, unline_bytes};
use secure_socket::logging::{Builder, FileSpec, Format, SinkSpec, Target, Verbosity};
use std::path::Path;
use std::time::Duration;

fn spec(path: &Path) -> SinkSpec {
    let mut spec = FileSpec::new(path);
    spec.max_size = 0;
    SinkSpec::File(spec)
}

/// The sum of what all messages of the queue's losses say of a severity.
fn stated(lines: &[String], severity: &str) -> u64 {
    let said = lines
        .iter()
        .filter(|line| line.contains(": the log queue was full"));
    let counts = said.filter_map(|line| {
        let (_, rest) = line.split_once(&format!("{severity} "))?;
        rest.split([',', ')']).next()?.parse::<u64>().ok()
    });
    counts.sum()
}

#[test]
fn what_is_dropped_is_counted_by_severity_and_errors_are_kept_longest() {
    let directory = TempDir::new("drop");
    let path = directory.join("log");
    let logger = Builder::new()
        .queue(64)
        .target(spec(&path))
        .build()
        .unwrap();
    let guard = start(&logger);
    let fronts: Vec<_> = (0..4).map(|_| Front::of(&logger)).collect();
    let threads: Vec<_> = fronts
        .into_iter()
        .enumerate()
        .map(|(thread, front)| {
            std::thread::spawn(move || {
                for number in 0..20_000 {
                    front.info(&format!("{thread} {number}"));
                    if number % 1000 == 0 {
                        front.say(Level::Error, &format!("{thread} {number}"));
                    }
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert!(guard.shutdown());
    let lines = all_lines(&path);
    let written = |label: &str| lines.iter().filter(|line| line.contains(label)).count() as u64;
    let (infos, errors) = (written(" INFO "), written(" ERROR "));
    assert!(infos < 80_000, "nothing was dropped");
    assert_eq!(infos + stated(&lines, "info"), 80_000);
    assert_eq!(errors + stated(&lines, "error"), 80);
    assert!(
        lines.last().unwrap().contains(" lost in all "),
        "{:?}",
        lines.last()
    );
    // In order for each thread, errors among the rest, whatever was dropped.
    let mut last = [-1_i64; 4];
    for line in lines.iter().filter(|line| !line.contains(" lost ")) {
        let (thread, number) = message(line).split_once(' ').unwrap();
        let last = &mut last[thread.parse::<usize>().unwrap()];
        let number = number.parse::<i64>().unwrap();
        assert!(number >= *last, "{line}");
        *last = number;
    }
    eprintln!("{infos} infos and {errors} of 80 errors written");
}

/// The sequence numbers of lines of JSON.
fn numbers(lines: &[String]) -> Vec<u64> {
    let number = |line: &String| {
        let (_, rest) = line.split_once("\"seq\":").unwrap();
        rest.split(',').next().unwrap().parse().unwrap()
    };
    lines.iter().map(number).collect()
}

fn say(front: &dyn log::Log, target: &str, level: Level) {
    let arguments = format_args!("x");
    front.log(
        &log::Record::builder()
            .level(level)
            .target(target)
            .args(arguments)
            .build(),
    );
}

#[test]
fn sequence_numbers_show_the_gap() {
    let directory = TempDir::new("gap");
    let path = directory.join("log");
    let builder = Builder::new().queue(16).format(Format::Json);
    let logger = builder.target(spec(&path)).build().unwrap();
    let guard = start(&logger);
    let front = Front::of(&logger);
    for number in 0..5000 {
        front.info(&number.to_string());
    }
    assert!(guard.shutdown());
    let lines = all_lines(&path);
    let numbers = numbers(&lines);
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    let said = lines.iter().filter(|line| line.contains("\"lost ")).count() as u64;
    assert_eq!(*numbers.last().unwrap(), 5000 + said);
}

#[test]
fn what_no_sink_wants_takes_no_room_and_no_number() {
    let directory = TempDir::new("unwanted");
    let path = directory.join("log");
    let logger = Builder::new()
        .format(Format::Json)
        .verbosity_for("test::loud", Verbosity::ALL)
        .target(spec(&path))
        .build()
        .unwrap();
    let front = logger.as_log();
    for (target, level, queued) in [
        ("test", Level::Debug, 0),
        ("test::louder", Level::Trace, 0),
        ("test::loud", Level::Trace, 1),
        ("test", Level::Info, 2),
        ("test", Level::Debug, 2),
        ("test", Level::Error, 3),
    ] {
        say(&*front, target, level);
        assert_eq!(logger.stats().queued, queued, "{target} {level}");
    }
    drop(start(&logger));
    assert_eq!(numbers(&all_lines(&path)), [1, 2, 3]);
}

#[test]
fn each_sink_has_numbers_of_its_own() {
    let directory = TempDir::new("numbers");
    let (few, many, usual) = (
        directory.join("few"),
        directory.join("many"),
        directory.join("usual"),
    );
    let target = |path: &Path, level: &str| Target {
        sink: spec(path),
        level: Some(level.parse::<Verbosity>().unwrap()),
    };
    let logger = Builder::new()
        .format(Format::Json)
        .target(target(&few, "4"))
        .target(target(&many, "8"))
        .target(spec(&usual))
        .build()
        .unwrap();
    let guard = start(&logger);
    let front = logger.as_log();
    for _ in 0..10 {
        Level::iter().for_each(|level| say(&*front, "test", level));
    }
    drop(guard);
    for (path, lines) in [(&few, 20), (&many, 40), (&usual, 30)] {
        let expected: Vec<u64> = (1..=lines).collect();
        assert_eq!(numbers(&all_lines(path)), expected, "{}", path.display());
    }
}

#[test]
fn what_a_peer_chose_makes_no_second_line_and_comes_back() {
    let directory = TempDir::new("forged");
    let long = [b"\n\x1b[2J".as_slice(), &[b'A'; 64 << 10], b"\xff\n"].concat();
    let names: [&[u8]; 8] = [
        b"x\n2026-11-23T10:20:30.123456Z ALERT forged (src/x.rs:1 main)",
        b"\x1b[31mred\x1b]0;title\x07\x9b31m",
        b"nul\0nul\r\rback\x08",
        b"\xff\xfe invalid \xc3\x28 \xed\xa0\x80",
        "\u{202e}gnol\u{2066}\u{2028}\u{2029}\u{85}\u{9b}2J\u{200f}".as_bytes(),
        b"back\\slash \\n \\x1b \\u{85}",
        b"\"}]} quote \" ] <0>1",
        &long,
    ];
    for (format, name) in [
        (Format::Text, "text"),
        (Format::Json, "json"),
        (Format::Rfc5424, "rfc5424"),
    ] {
        let path = directory.join(name);
        let logger = Builder::new()
            .format(format)
            .target(spec(&path))
            .build()
            .unwrap();
        let guard = start(&logger);
        let front = Front::of(&logger);
        for name in names {
            front.info(&format!("<{}>", Untrusted(name)));
        }
        assert!(guard.shutdown());
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(
            bytes.iter().filter(|byte| **byte == b'\n').count(),
            names.len()
        );
        let text = String::from_utf8(bytes).unwrap();
        let wrong = |c: char| {
            let reorders =
                matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200f}');
            (c.is_control() && c != '\n') || reorders
        };
        assert_eq!(text.chars().find(|c| wrong(*c)), None);
        if format == Format::Text {
            for (line, name) in text.lines().zip(names) {
                let shown = message(line);
                let shown = shown.strip_prefix('<').unwrap().strip_suffix('>').unwrap();
                assert_eq!(unline_bytes(shown).unwrap(), name);
            }
        }
    }
}

#[test]
fn each_sink_has_its_level_and_each_module_too() {
    let directory = TempDir::new("levels");
    let (few, many, usual) = (
        directory.join("few"),
        directory.join("many"),
        directory.join("usual"),
    );
    let level = |text: &str| Some(text.parse::<Verbosity>().unwrap());
    let logger = Builder::new()
        .target(Target {
            sink: spec(&few),
            level: level("warning"),
        })
        .target(Target {
            sink: spec(&many),
            level: level("8"),
        })
        .target(spec(&usual))
        .verbosity_for("test::loud", Verbosity::ALL)
        .verbosity_for("test::quiet", Verbosity::OFF)
        .build()
        .unwrap();
    let guard = start(&logger);
    let front = logger.as_log();
    for target in ["test", "test::loud::x", "test::quiet", "test::loudest"] {
        Level::iter().for_each(|level| say(&*front, target, level));
    }
    assert!(logger.flush(Duration::from_secs(5)));
    logger.set_verbosity("error".parse().unwrap());
    say(&*front, "test", Level::Info);
    drop(guard);
    let labels = |path| {
        let lines = all_lines(path).into_iter();
        lines
            .map(|line| line.split(' ').nth(1).unwrap()[..2].to_owned())
            .collect::<String>()
    };
    assert_eq!(labels(&few), "ERWAERWAERWA");
    assert_eq!(labels(&many), "ERWAINDEERWAINDEERWAINDEIN");
    assert_eq!(labels(&usual), "ERWAINERWAINDETRERWAIN");
}

#[test]
fn limited_lines_are_summarised() {
    use secure_socket::limited;
    let directory = TempDir::new("limited");
    let path = directory.join("log");
    let guard = Builder::new().target(spec(&path)).start().unwrap();
    for number in 0..100 {
        limited!(notice, conn = 3; "denied {number}");
    }
    std::thread::sleep(Duration::from_millis(1600));
    let place = |number: u32| limited!(notice, "other {number}");
    guard.logger().set_rate(Some(3));
    (0..100).for_each(place);
    std::thread::sleep(Duration::from_millis(1100));
    guard.logger().set_rate(None);
    (100..200).for_each(place);
    drop(guard);
    let lines = all_lines(&path);
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("[conn 3] denied "))
            .count(),
        10
    );
    let others: Vec<_> = lines.iter().filter(|l| l.contains(" other ")).collect();
    assert_eq!(others.len(), 103);
    let summaries = lines.iter().filter_map(|line| {
        let (before, _) = line.split_once(" more lines like this suppressed")?;
        before.rsplit(' ').next()
    });
    assert_eq!(summaries.collect::<Vec<_>>(), ["90", "97"], "{lines:?}");
}
