#include "decode/json_pattern.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/utf8.h"
#include "decode/json_pattern_parser.h"

namespace kvasir {
namespace {

/// Writes parts into an automaton. A part that is repeated n times is written n times.
class Writer {
 public:
  Writer(const std::vector<PatternPart>& parts, WorkBudget& budget) : parts_(parts), budget_(budget) {}

  Result<ByteNfa::Fragment> Write(int32_t index) {
    RETURN_IF_ERROR(budget_.Spend(1));
    if (nfa_.full) return ByteNfa::Fragment{0, 0};  // Determinize says so
    const PatternPart& part = parts_[static_cast<size_t>(index)];
    switch (part.kind) {
      case PatternPart::kSet: return WriteSet(part.set);
      case PatternPart::kSequence: return WriteSequence(part);
      case PatternPart::kChoice: return WriteChoice(part);
      case PatternPart::kRepeat: return WriteRepeat(part);
    }
    return Internal("a part of no kind");
  }

  const ByteNfa& nfa() const { return nfa_; }

 private:
  Result<ByteNfa::Fragment> WriteSequence(const PatternPart& part) {
    const int32_t in = nfa_.AddState();
    int32_t out = in;
    for (const int32_t child : part.children) {
      ASSIGN_OR_RETURN(const ByteNfa::Fragment next, Write(child));
      nfa_.AddEmpty(out, next.in);
      out = next.out;
    }
    return ByteNfa::Fragment{in, out};
  }

  Result<ByteNfa::Fragment> WriteChoice(const PatternPart& part) {
    const int32_t in = nfa_.AddState();
    const int32_t out = nfa_.AddState();
    for (const int32_t child : part.children) {
      ASSIGN_OR_RETURN(const ByteNfa::Fragment choice, Write(child));
      nfa_.AddEmpty(in, choice.in);
      nfa_.AddEmpty(choice.out, out);
    }
    return ByteNfa::Fragment{in, out};
  }

  Result<ByteNfa::Fragment> WriteRepeat(const PatternPart& part) {
    const int32_t in = nfa_.AddState();
    const int32_t out = nfa_.AddState();
    int32_t last = in;
    for (int i = 0; i < std::max(part.min, part.max) && !nfa_.full; ++i) {
      if (i >= part.min) nfa_.AddEmpty(last, out);
      ASSIGN_OR_RETURN(const ByteNfa::Fragment one, Write(part.children[0]));
      nfa_.AddEmpty(last, one.in);
      last = one.out;
    }
    if (part.max < 0) {  // a loop of its own, which nothing can enter in the middle
      const int32_t loop = nfa_.AddState();
      ASSIGN_OR_RETURN(const ByteNfa::Fragment more, Write(part.children[0]));
      nfa_.AddEmpty(last, loop);
      nfa_.AddEmpty(loop, more.in);
      nfa_.AddEmpty(more.out, loop);
      last = loop;
    }
    nfa_.AddEmpty(last, out);
    return ByteNfa::Fragment{in, out};
  }

  Result<ByteNfa::Fragment> WriteSet(const CodeSet& set) {
    RETURN_IF_ERROR(budget_.Spend(static_cast<int64_t>(set.size())));
    const ByteNfa::Fragment fragment{nfa_.AddState(), nfa_.AddState()};
    const auto add = [&](char32_t low, char32_t high, char32_t from, char32_t to) {
      low = std::max(low, from);
      high = std::min(high, to);
      if (low <= high) WriteRange(fragment.in, fragment.out, low, high);
    };
    int32_t escape = -1;
    for (const CodeRange range : set) {
      for (const auto& [code, letter] : kEscapes) {
        if (code < range.low || code > range.high) continue;
        if (escape < 0) {
          escape = nfa_.AddState();
          nfa_.AddEdge(fragment.in, '\\', '\\', escape);
        }
        nfa_.AddEdge(escape, static_cast<uint8_t>(letter), static_cast<uint8_t>(letter), fragment.out);
      }
      // What stands for itself: all but control characters, the quote and the backslash; in pieces of equal length.
      add(range.low, range.high, 0x20, 0x21);
      add(range.low, range.high, 0x23, 0x5B);
      add(range.low, range.high, 0x5D, 0x7F);
      add(range.low, range.high, 0x80, 0x7FF);
      add(range.low, range.high, 0x800, 0xD7FF);
      add(range.low, range.high, 0xE000, 0xFFFF);
      add(range.low, range.high, 0x10000, kLastCodePoint);
    }
    return fragment;
  }

  void WriteRange(int32_t from, int32_t to, char32_t low, char32_t high) {
    std::string first;
    std::string last;
    AppendUtf8(first, low);
    AppendUtf8(last, high);
    WriteBytes(from, to, first, last);
  }

  /// Edges for all byte strings from `low` to `high`, of equal length; each byte behind the first is 0x80 to 0xBF.
  void WriteBytes(int32_t from, int32_t to, std::string_view low, std::string_view high) {
    const auto first = static_cast<uint8_t>(low[0]);
    const auto last = static_cast<uint8_t>(high[0]);
    if (low.size() == 1) return nfa_.AddEdge(from, first, last, to);
    const std::string least(low.size() - 1, '\x80');
    const std::string most(low.size() - 1, '\xBF');
    const auto lead = [&](uint8_t begin, uint8_t end, std::string_view rest_low, std::string_view rest_high) {
      const int32_t next = nfa_.AddState();
      nfa_.AddEdge(from, begin, end, next);
      WriteBytes(next, to, rest_low, rest_high);
    };
    if (first == last) return lead(first, first, low.substr(1), high.substr(1));
    int begin = first;
    int end = last;
    if (low.substr(1) != least) {
      lead(first, first, low.substr(1), most);
      ++begin;
    }
    if (high.substr(1) != most) {
      lead(last, last, least, high.substr(1));
      --end;
    }
    if (begin <= end) lead(static_cast<uint8_t>(begin), static_cast<uint8_t>(end), least, most);
  }

  static constexpr std::pair<char32_t, char> kEscapes[] = {{'"', '"'},  {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'},
                                                           {'\n', 'n'}, {'\r', 'r'},  {'\t', 't'}};

  const std::vector<PatternPart>& parts_;
  WorkBudget& budget_;
  ByteNfa nfa_;
};

}  // namespace

Result<ByteDfa> CompileJsonPattern(std::string_view pattern, WorkBudget& budget) {
  ASSIGN_OR_RETURN(const PatternTree tree, ParseJsonPattern(pattern));
  Writer writer(tree.parts, budget);
  ASSIGN_OR_RETURN(const ByteNfa::Fragment fragment, writer.Write(tree.root));
  return Determinize(writer.nfa(), fragment, budget);
}

}  // namespace kvasir
