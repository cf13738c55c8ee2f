// A doubly linked list whose links live in the elements: insertion and removal never allocate, and
// an element can be in several lists through several links.
#pragma once

#include <cstddef>

namespace metaprotocol {

struct ListLink {
  ListLink* previous = nullptr;
  ListLink* next = nullptr;

  ListLink() = default;
  ListLink(const ListLink&) = delete;
  ListLink& operator=(const ListLink&) = delete;

  bool linked() const { return next != nullptr; }
  void Unlink() {
    if (!linked()) return;
    previous->next = next;
    next->previous = previous;
    previous = next = nullptr;
  }
};

// `Link` is a ListLink base class of T; T derives from one distinct link type per list it is in.
template <typename T, typename Link>
class IntrusiveList {
 public:
  IntrusiveList() { Reset(); }
  ~IntrusiveList() { Clear(); }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;

  bool empty() const { return root_.next == &root_; }
  T& front() { return *Element(root_.next); }
  void PushBack(T& element) {
    Link& link = element;
    link.previous = root_.previous;
    link.next = &root_;
    root_.previous->next = &link;
    root_.previous = &link;
  }
  static void Remove(T& element) { static_cast<Link&>(element).Unlink(); }

  // Calls f(T&) for each element; f may remove the element it is given, but no other.
  template <typename F>
  void ForEach(F&& f) {
    for (ListLink* link = root_.next; link != &root_;) {
      ListLink* next = link->next;
      f(*Element(link));
      link = next;
    }
  }

  // The first element for which f(T&) holds, or null.
  template <typename F>
  T* Find(F&& f) {
    for (ListLink* link = root_.next; link != &root_; link = link->next) {
      if (f(*Element(link))) return Element(link);
    }
    return nullptr;
  }

  void Clear() {
    while (!empty()) root_.next->Unlink();
  }

 private:
  static T* Element(ListLink* link) { return static_cast<T*>(static_cast<Link*>(link)); }
  void Reset() { root_.previous = root_.next = &root_; }

  ListLink root_;
};

}  // namespace metaprotocol
