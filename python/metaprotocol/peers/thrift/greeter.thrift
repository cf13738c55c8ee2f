// The service that demo and tests call.
exception Refused {
  1: string reason
}

struct Record {
  1: string name
  2: list<i64> numbers
  3: map<string, string> notes
  4: bool flag
  5: double ratio
}

service Greeter {
  string greet(1: string name) throws (1: Refused refused)
  i64 add(1: i64 left, 2: i64 right)
  Record store(1: Record record)
  oneway void note(1: string text)
}
