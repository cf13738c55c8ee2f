#include "src/bindings/yaml_bindings.h"

#include <yaml.h>

#include <array>
#include <functional>
#include <new>
#include <string_view>
#include <utility>
#include <vector>

namespace metaprotocol {
namespace {

namespace py = pybind11;

struct YamlEvent : yaml_event_t {
  YamlEvent() : yaml_event_t{} {}
  ~YamlEvent() { yaml_event_delete(this); }
  YamlEvent(const YamlEvent&) = delete;
  YamlEvent& operator=(const YamlEvent&) = delete;

  std::string_view text() const {
    return {reinterpret_cast<const char*>(data.scalar.value), data.scalar.length};
  }
};

py::object Owned(PyObject* object) {
  if (object == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(object);
}

// The texts of a document, most of which are there many times.
class Texts {
 public:
  // UnicodeDecodeError if it is no UTF-8.
  py::object Get(std::string_view text) {
    if (text.size() > kLongest) return Made(text);
    py::object& place = known_[std::hash<std::string_view>{}(text) % known_.size()];
    if (!place || Written(place) != text) place = Made(text);
    return place;
  }

 private:
  static constexpr size_t kLongest = 64;

  static py::object Made(std::string_view text) {
    return Owned(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "strict"));
  }

  static std::string_view Written(const py::object& text) {
    Py_ssize_t size = 0;
    const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (data == nullptr) throw py::error_already_set();
    return {data, static_cast<size_t>(size)};
  }

  std::array<py::object, 256> known_;
};

// Builds what one document says out of libyaml's events, without an object for each event. It takes
// documents as nearly all are, and leaves the others, with all that is wrong in any, to
// metaprotocol.resources.yaml_reader: what has to be told is told at one place.
class YamlReader {
 public:
  YamlReader(const py::dict& words, const py::function& number, size_t values, size_t depth)
      : words_(words), number_(number), values_left_(values), depth_(depth) {
    if (yaml_parser_initialize(&parser_) == 0) throw std::bad_alloc();
  }
  ~YamlReader() { yaml_parser_delete(&parser_); }
  YamlReader(const YamlReader&) = delete;
  YamlReader& operator=(const YamlReader&) = delete;

  // False if it is left to others.
  bool Read(std::string_view text) {
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()),
                                 text.size());
    for (size_t count = 1;; ++count) {
      YamlEvent event;
      if (yaml_parser_parse(&parser_, &event) == 0) return false;
      if (event.type == YAML_STREAM_END_EVENT) return static_cast<bool>(root_);
      if (!Take(event)) return false;
      // Other threads wait no longer than they do for Python's own code.
      if (count % kEventsBetweenSwitches == 0) py::gil_scoped_release others;
    }
  }

  const py::object& root() const { return root_; }
  const py::dict& keys() const { return keys_; }

 private:
  static constexpr size_t kEventsBetweenSwitches = 1000;
  // The longest of the words that are no text without quotes, such as "false".
  static constexpr size_t kLongestWord = 5;

  struct Level {
    PyObject* content;
    bool mapping;
    py::object key;  // of the value that comes next; nothing: a key comes next
  };

  bool Take(const YamlEvent& event) {
    switch (event.type) {
      case YAML_DOCUMENT_START_EVENT:
        return !root_;
      case YAML_SCALAR_EVENT:
        return TakeScalar(event);
      case YAML_MAPPING_START_EVENT:
        return event.data.mapping_start.anchor == nullptr &&
               event.data.mapping_start.tag == nullptr && Begin(Owned(PyDict_New()), true);
      case YAML_SEQUENCE_START_EVENT:
        return event.data.sequence_start.anchor == nullptr &&
               event.data.sequence_start.tag == nullptr && Begin(Owned(PyList_New(0)), false);
      case YAML_MAPPING_END_EVENT:
      case YAML_SEQUENCE_END_EVENT:
        levels_.pop_back();
        return true;
      case YAML_ALIAS_EVENT:
        return false;
      default:
        return true;
    }
  }

  bool TakeScalar(const YamlEvent& event) {
    const auto& scalar = event.data.scalar;
    if (scalar.anchor != nullptr || scalar.tag != nullptr || !Spend()) return false;
    const std::string_view text = event.text();
    const bool plain = scalar.plain_implicit != 0;
    if (!ExpectsKey()) return Add(plain ? Plain(text) : texts_.Get(text));
    // A merge, or what might be no number.
    if (plain &&
        (text == "<<" || text.starts_with('.') || text.starts_with('+') || text.starts_with('-'))) {
      return false;
    }
    levels_.back().key = texts_.Get(text);
    Note(event.start_mark.index);
    return true;
  }

  bool Begin(py::object content, bool mapping) {
    if (levels_.size() >= depth_ || ExpectsKey() || !Spend()) return false;
    if (levels_.empty() && !mapping) return false;
    PyObject* const borrowed = content.ptr();
    if (!Add(std::move(content))) return false;
    levels_.push_back({borrowed, mapping, {}});
    return true;
  }

  // False if its key is there already.
  bool Add(py::object value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Level& level = levels_.back();
    if (!level.mapping) {
      if (PyList_Append(level.content, value.ptr()) != 0) throw py::error_already_set();
      return true;
    }
    const py::object key = std::exchange(level.key, {});
    const Py_ssize_t before = PyDict_Size(level.content);
    if (PyDict_SetItem(level.content, key.ptr(), value.ptr()) != 0) throw py::error_already_set();
    return PyDict_Size(level.content) > before;
  }

  // What a text without quotes means. ValueError if nothing.
  py::object Plain(std::string_view text) {
    py::object written = texts_.Get(text);
    if (text.size() <= kLongestWord) {
      PyObject* const meaning = PyDict_GetItemWithError(words_.ptr(), written.ptr());
      if (meaning != nullptr) return py::reinterpret_borrow<py::object>(meaning);
      if (PyErr_Occurred() != nullptr) throw py::error_already_set();
    }
    if (std::string_view("0123456789+-.").find(text.front()) == std::string_view::npos) {
      return written;
    }
    return number_(written);
  }

  // Remembers where a key of the outermost mapping, or of those in it, is written.
  void Note(size_t index) {
    if (levels_.size() > 2) return;
    const py::object& key = levels_.back().key;
    py::tuple path(levels_.size());
    if (levels_.size() == 1) outer_ = key;
    path[0] = outer_;
    if (levels_.size() == 2) path[1] = key;
    keys_[path] = index;
  }

  bool ExpectsKey() const {
    return !levels_.empty() && levels_.back().mapping && !levels_.back().key;
  }

  bool Spend() {
    if (values_left_ == 0) return false;
    --values_left_;
    return true;
  }

  const py::dict& words_;
  const py::function& number_;
  size_t values_left_;
  const size_t depth_;
  yaml_parser_t parser_;
  Texts texts_;
  std::vector<Level> levels_;
  py::object root_;
  py::object outer_;  // the key of the outermost mapping that came last
  py::dict keys_;
};

// What a document says, and where the keys of its outermost mappings are: a tuple of both. None if
// it has anything out of the ordinary.
py::object ReadYaml(const py::str& text, const py::dict& words, const py::function& number,
                    size_t values, size_t depth) {
  try {
    const py::object bytes = Owned(PyUnicode_AsUTF8String(text.ptr()));
    YamlReader reader(words, number, values, depth);
    if (!reader.Read(
            {PyBytes_AS_STRING(bytes.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.ptr()))})) {
      return py::none();
    }
    return py::make_tuple(reader.root(), reader.keys());
  } catch (const py::error_already_set& error) {
    // Text that is no UTF-8, and numbers that are none.
    if (!error.matches(PyExc_ValueError)) throw;
    return py::none();
  }
}

}  // namespace

void BindYaml(py::module_& module) {
  module.def("read_yaml", &ReadYaml, py::arg("text"), py::arg("words"), py::arg("number"),
             py::arg("values"), py::arg("depth"));
}

}  // namespace metaprotocol
