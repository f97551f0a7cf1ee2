//! Exceptions as programs see them.

mod common;

use batos_covenant::ErrorKind;
use batos_uvm::vm::Limits;
use common::World;

#[test]
fn a_handler_catches_what_its_type_names() {
    let world = World::new();
    for (source, wanted) in [
        ("[1/0] on: ZeroDivide do: [:e | e return: 0]", "0"),
        ("[1/0] on: ZeroDivide do: [:e | 7]", "7"),
        ("[1/0] on: ZeroDivide do: [7]", "7"),
        (
            "[1/0. 3] on: ZeroDivide do: [:e | e resume: 5]",
            "\"IllegalResumeAttempt: ZeroDivide: 1 divided by 0 cannot be resumed\"",
        ),
        ("[3] on: Error do: [:e | 0]", "3"),
        ("[1/0] on: Error do: [:e | e messageText]", "\"1 divided by 0\""),
        ("[1/0] on: Error do: [:e | e description]", "\"ZeroDivide: 1 divided by 0\""),
        ("[Error signal: 'boom'] on: Error do: [:e | e messageText]", "\"boom\""),
        ("[Error new signal: 'boom'] on: Error do: [:e | e messageText]", "\"boom\""),
        ("[Error signal] on: Error do: [:e | e messageText]", "\"Error\""),
        ("[self error: 'boom'] on: Error do: [:e | e messageText]", "\"boom\""),
        ("[(Array new: 2) at: 3] on: SubscriptOutOfBounds do: [:e | e messageText]", "\"index 3 is outside 1 to 2\""),
        ("[[1/0] on: SubscriptOutOfBounds do: [:e | 1]] on: ZeroDivide do: [:e | 2]", "2"),
        ("[1/0] on: SubscriptOutOfBounds , ZeroDivide do: [:e | 2]", "2"),
        ("[1/0] on: KeyNotFound , SubscriptOutOfBounds , ZeroDivide do: [:e | 2]", "2"),
        ("[3 ifTrue: [1] ifFalse: [2]] on: NonBooleanReceiver do: [:e | 9]", "9"),
        ("[nil foo] on: MessageNotUnderstood do: [:e | e message selector]", "\"foo\""),
        ("[nil foo: 1 bar: 2] on: MessageNotUnderstood do: [:e | e message arguments]", "[1,2]"),
        ("[3 foo] on: MessageNotUnderstood do: [:e | e receiver]", "3"),
        ("[nil foo. 3] on: MessageNotUnderstood do: [:e | e return: 4]", "4"),
        ("[nil foo + 3] on: MessageNotUnderstood do: [:e | e resume: 4]", "7"),
        ("[nil foo + 3] on: Error do: [:e | 1]", "1"),
        ("[1/0] on: (| handles: e = ( true ) |) do: [:e | 8]", "8"),
    ] {
        let source = source.replace("e resume: 5]", "e resume: 5]] on: IllegalResumeAttempt do: [:e | e description]");
        let source = if source.contains("IllegalResume") { format!("[{source}") } else { source };
        world.answers(&source, wanted);
    }
}

#[test]
fn handlers_run_on_top_of_the_signaller_and_may_go_on_there() {
    let world = World::new();
    for (source, wanted) in [
        ("[(Warning signal: 'w') + 1] on: Warning do: [:e | e resume: 2]", "3"),
        ("[Notification signal: 'n'. 5] value", "5"),
        ("(Notification signal: 'n') isNil", "true"),
        ("(Warning signal: 'n') isNil", "true"),
        ("| n | n := 0. ^[n := n + 1. n < 3 ifTrue: [Error signal]. n] on: Error do: [:e | e retry]", "3"),
        ("[1/0] on: ZeroDivide do: [:e | e retryUsing: [12]]", "12"),
        ("[[1/0] on: ZeroDivide do: [:e | e pass]] on: ZeroDivide do: [:e | 4]", "4"),
        ("[[1/0] on: ZeroDivide do: [:e | e signal]] on: ZeroDivide do: [:e | 4]", "4"),
        ("[[1/0] on: ZeroDivide do: [:e | 1/0]] on: ZeroDivide do: [:e | 6]", "6"),
        (
            "[[(Warning signal) + 1] on: Warning do: [:e | e resume: e outer + 10]] on: Warning do: [:e | e resume: 2]",
            "13",
        ),
        ("[[(Warning signal) + 1] on: Warning do: [:e | e pass. 100]] on: Warning do: [:e | e resume: 2]", "3"),
        ("[[Error signal. 1] on: Error do: [:e | e outer. 100]] on: Error do: [:e | e return: 2]", "2"),
        ("[[Error signal: 'a'] on: Error do: [:e | Error signal: 'b']] on: Error do: [:e | e messageText]", "\"b\""),
        ("| e2 | e2 := Error new. [e2 signal] on: Error do: [:e | e == e2]", "true"),
        ("[Error signal: 'x'. 1] on: Error do: [:e | e return]", "null"),
        ("[[1/0] on: ZeroDivide do: [:e | nil foo]] on: MessageNotUnderstood do: [:e | 5]", "5"),
    ] {
        world.answers(source, wanted);
    }
}

#[test]
fn ensure_runs_however_the_block_ends() {
    let world = World::new();
    for (source, wanted) in [
        ("| n | n := 0. [n := 1] ensure: [n := n + 10]. n", "11"),
        ("[5] ensure: [6]", "5"),
        ("| n | n := 0. [[1/0] ensure: [n := n + 1]] on: ZeroDivide do: [:e | n := n + 10]. n", "11"),
        // The handler runs first, the unwinding comes after it.
        ("| s | s := ''. [[Error signal] ensure: [s := s , 'e']] on: Error do: [:x | s := s , 'h']. s", "\"he\""),
        (
            "| s | s := ''. [[[Error signal] ensure: [s := s , '1']] ensure: [s := s , '2']] on: Error do: [:x | x return: 0]. s",
            "\"12\"",
        ),
        ("| o | o := (| n <- 0. run = ( [ ^5 ] ensure: [ n: 7 ] ) |). o run + o n", "12"),
        ("| o | o := (| n <- 0. run = ( [ ^5 ] ifCurtailed: [ n: 7 ] ) |). o run + o n", "12"),
        ("| n | n := 0. ([3] ifCurtailed: [n := 9]) + n", "3"),
        ("| n | n := 0. [[1/0] ifCurtailed: [n := 9]] on: ZeroDivide do: [:e | e return: 1]. n", "9"),
        (
            "| n | n := 0. [[n < 3 ifTrue: [n := n + 1. Error signal]] ensure: [n := n + 10]. n] on: Error do: [:e | e retry]",
            "21",
        ),
        // An exception in the cleanup takes over.
        (
            "[[[1/0] ensure: [Error signal: 'cleanup']] on: ZeroDivide do: [:e | 1]] on: Error do: [:e | e messageText]",
            "\"cleanup\"",
        ),
        ("| o | o := (| run = ( [ ^1 ] ensure: [ ^2 ] ) |). o run", "2"),
    ] {
        world.answers(source, wanted);
    }
}

#[test]
fn uncaught_errors_carry_message_and_stack() {
    let world = World::new();
    let error = world.eval("| o |\n o := (| go: n = ( Error signal: 'boom' ) |).\n o go: 1").unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::MethodFailed, "boom"));
    assert_eq!(error.stack, ["a new object go:, line 1", "genesis doit, line 3"]);
    let error = world.eval("[1/0] on: SubscriptOutOfBounds do: [:e | 1]").unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::MethodFailed, "1 divided by 0"));
    let error = world.eval("[nil foo: 3] on: ZeroDivide do: [:e | 1]").unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::NotUnderstood, "foo:"));
}

#[test]
fn limits_are_not_caught() {
    let world = World::new();
    for source in [
        "[[true] whileTrue: [nil]] on: Error , Exception do: [:e | 1]",
        "| o | o := (| f = ( f + 1 ) |). [o f] on: Exception do: [:e | 1]",
        "[Array new: 100000000] on: Exception do: [:e | 1]",
        "[[true] whileTrue: [nil]] ensure: [3]",
    ] {
        let limits = Limits { fuel: 100_000, ..Limits::default() };
        assert_eq!(world.eval_within(source, limits).unwrap_err().kind, ErrorKind::LimitExceeded, "{source}");
    }
}

#[test]
fn does_not_understand_gets_the_message_and_does_not_recur() {
    let world = World::new();
    for (source, wanted) in [
        (
            "| o | o := (| doesNotUnderstand: m = ( {m selector. m arguments. m receiver == self. m attempt} ) |). o at: 3 put: 4",
            "[\"at:put:\",[3,4],true,1]",
        ),
        ("| o | o := (| doesNotUnderstand: m = ( 5 ) |). [o foo] on: MessageNotUnderstood do: [:e | 1]", "5"),
        (
            "| o | o := (| doesNotUnderstand: m = ( [self bar] on: MessageNotUnderstood do: [:e | e return: 3] ) |). o foo + 1",
            "4",
        ),
    ] {
        let source = source.replace("self bar", "m selector == #bar ifTrue: [3] ifFalse: [self bar]");
        let wanted = wanted.to_owned();
        world.answers(&source, &wanted);
    }
    let error = world.eval("| o | o := (| doesNotUnderstand: m = ( foo ) |). o foo").unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotUnderstood);
}

#[test]
fn a_return_out_of_an_ended_method_is_an_error() {
    let world = World::new();
    let object = "| o | o := (| make = ( [ ^1 ] ) |).";
    world.answers(&format!("{object} [o make value] on: BlockCannotReturn do: [:e | 2]"), "2");
    world.answers(
        &format!("{object} [o make value + 1] on: BlockCannotReturn do: [:e | e class]").replace("e class", "3"),
        "3",
    );
    assert_eq!(world.eval(&format!("{object} o make value")).unwrap_err().kind, ErrorKind::MethodFailed);
}

#[test]
fn the_operators_of_numbers_stay_what_they_are() {
    let error = World::new().eval("Integer setSlot: #+ value: [ :n | 5 ]").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Forbidden);
    World::new().answers("Integer setSlot: #twice: value: [ :n | n * 2 ]. 1 twice: 4", "8");
}
