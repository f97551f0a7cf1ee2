//! Every sample of the language guide does what the guide says.

mod common;

#[test]
fn samples_of_the_guide_hold() {
    let guide = include_str!("../LANGUAGE.md");
    let mut failures = Vec::new();
    let mut count = 0;
    for (before, sample) in guide.match_indices("```smalltalk\n").map(|(at, fence)| (at, &guide[at + fence.len()..])) {
        let sample = sample.split("```").next().unwrap();
        count += 1;
        if let Err(failure) = common::script::run(sample) {
            failures.push(format!("sample at line {}, its line {failure}", guide[..before].matches('\n').count() + 1));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count >= 15);
}
