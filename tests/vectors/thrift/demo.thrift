// The service that the vectors were captured with.
exception DemoError {
  1: string message,
}

struct Leaf {
  1: string name,
  2: bool yes,
  3: bool no,
}

struct Everything {
  1: bool a_bool,
  2: byte a_byte,
  3: i16 an_i16,
  4: i32 an_i32,
  5: i64 an_i64,
  6: double a_double,
  7: string a_string,
  8: binary a_binary,
  9: list<i32> i32s,
  10: list<bool> bools,
  11: set<string> strings,
  12: map<string, i64> by_name,
  13: map<i32, double> by_number,
  14: list<Leaf> leaves,
  15: map<string, list<Leaf>> nested,
  16: list<list<i16>> matrix,
  17: list<string> empty_list,
  18: map<string, string> empty_map,
  40: Leaf leaf,  // far from its predecessor: compact's long form of a field id
}

service Demo {
  string echo(1: string text),
  void ping(),
  string fail(1: string text) throws (1: DemoError error),
  void fail_void(1: string text) throws (1: DemoError error),
  string crash(),
  oneway void notify(1: string text),
  Everything mirror(1: Everything value),
}
