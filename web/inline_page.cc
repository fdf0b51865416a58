// Makes the web page's C++ source: inline_page OUT.cc WEB_DIR NAME=LIBRARY_DIR…
//
// WEB_DIR/index.html is copied line by line; a line `@inline KIND FILE…` becomes one element:
//   style    a <style> of the files
//   script   a <script> of the files, in order, inside one strict function
//   library  a <script> of one file as it is
//   notice   a comment of one file
//   module   a <script> that gives a CommonJS module the name of the first word
//   commonjs a <script> that registers CommonJS modules FILE… (grammars of highlight.js) under their names
// FILE is in WEB_DIR, or NAME/… in that library's folder. Every element's SHA-256 goes into the page's
// Content-Security-Policy. OUT.cc.d tells the build tool what was read.
#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxPage = 400'000;  // bytes; what the page may weigh

std::string Sha256Base64(std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha256(), nullptr) != 1) {
    throw std::runtime_error("libcrypto cannot compute SHA-256");
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE * 2> base64{};
  const int length = EVP_EncodeBlock(base64.data(), digest.data(), static_cast<int>(size));
  return {reinterpret_cast<const char*>(base64.data()), static_cast<size_t>(length)};
}

/// In a script, "<!--" and "<script" change how HTML finds its end, and "</script" is its end. All three occur only
/// within string and regular-expression literals, where the first character may as well be written by its number.
std::string EscapeScript(std::string_view text) {
  const auto begins = [&](size_t at, std::string_view word) {
    if (text.size() - at < word.size()) return false;
    for (size_t i = 0; i < word.size(); ++i) {
      const char c = text[at + i];
      if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c) != word[i]) return false;
    }
    return true;
  };
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (begins(i, "<!--") || begins(i, "<script") || begins(i, "</script")) {
      out += "\\x3C";
    } else {
      out += text[i];
    }
  }
  return out;
}

class PageMaker {
 public:
  PageMaker(fs::path web, std::map<std::string, fs::path> libraries)
      : web_(std::move(web)), libraries_(std::move(libraries)) {}

  void Make() {
    std::istringstream lines(Read("index.html"));
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string word, kind;
      if (words >> word && word == "@inline") {
        words >> kind;
        std::vector<std::string> files;
        while (words >> word) files.push_back(word);
        Inline(kind, files);
      } else {
        html_ += line + '\n';
      }
    }
    if (html_.size() > kMaxPage) {
      throw std::runtime_error(fmt::format("the page is {} bytes; at most {}", html_.size(), kMaxPage));
    }
  }

  std::string Policy() const {
    std::string policy = "default-src 'none'; script-src";
    for (const std::string& hash : scripts_) policy += fmt::format(" 'sha256-{}'", hash);
    policy += "; style-src";
    for (const std::string& hash : styles_) policy += fmt::format(" 'sha256-{}'", hash);
    // The sanitiser's fragments are the only markup that scripts may make.
    return policy +
           "; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
           "require-trusted-types-for 'script'; trusted-types dompurify";
  }

  const std::string& html() const { return html_; }
  const std::vector<fs::path>& read() const { return read_; }

 private:
  fs::path Find(const std::string& file) const {
    const size_t slash = file.find('/');
    if (slash == std::string::npos) return web_ / file;
    const auto library = libraries_.find(file.substr(0, slash));
    if (library == libraries_.end()) throw std::runtime_error(fmt::format("no library folder is named for {}", file));
    return library->second / file.substr(slash + 1);
  }

  std::string Read(const std::string& file) {
    const fs::path path = Find(file);
    std::ifstream in(path, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    if (!in || text.view().empty()) throw std::runtime_error(fmt::format("{} cannot be read", path.string()));
    read_.push_back(path);
    return text.str();
  }

  void Inline(std::string_view kind, const std::vector<std::string>& files) {
    if (files.empty()) throw std::runtime_error(fmt::format("index.html: @inline {} names no file", kind));
    std::string text;
    if (kind == "notice") {
      text = Read(files.front());
      if (text.find("-->") != std::string::npos) throw std::runtime_error("a notice holds \"-->\"");
      html_ += "<!--\n" + text + "-->\n";
      return;
    }
    if (kind == "style") {
      for (const std::string& file : files) text += Read(file);
      if (text.find("</") != std::string::npos) throw std::runtime_error("a style holds \"</\"");
      html_ += "<style>" + text + "</style>\n";
      styles_.push_back(Sha256Base64(text));
      return;
    }
    if (kind == "script") {
      text = "(() => {\n'use strict';\n";
      for (const std::string& file : files) text += fmt::format("// {}\n{}", file, Read(file));
      text += "})();\n";
    } else if (kind == "library") {
      text = WithoutSourceMap(Read(files.front()));
    } else if (kind == "module" && files.size() == 2) {
      text = fmt::format("const {} = (() => {{ const module = {{}};\n{}\nreturn module.exports; }})();\n", files[0],
                         Read(files[1]));
    } else if (kind == "commonjs") {
      for (const std::string& file : files) {
        const std::string name = fs::path(file).stem().string();
        text += fmt::format(
            "hljs.registerLanguage('{}', (() => {{ const module = {{}};\n{}\nreturn module.exports; }})());\n", name,
            Read(file));
      }
    } else {
      throw std::runtime_error(fmt::format("index.html: @inline knows no \"{}\"", kind));
    }
    text = EscapeScript(text);
    html_ += "<script>" + text + "</script>\n";
    scripts_.push_back(Sha256Base64(text));
  }

  // A browser's tools would ask for it.
  static std::string WithoutSourceMap(std::string text) {
    const size_t at = text.rfind("//# sourceMappingURL=");
    if (at != std::string::npos) text.erase(at, text.find('\n', at) - at);
    return text;
  }

  fs::path web_;
  std::map<std::string, fs::path> libraries_;
  std::string html_;
  std::vector<std::string> scripts_, styles_;  // SHA-256, base64
  std::vector<fs::path> read_;
};

void Write(const fs::path& path, std::string_view text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  if (!out.flush()) throw std::runtime_error(fmt::format("{} cannot be written", path.string()));
}

std::string Source(const PageMaker& page) {
  std::string source =
      "// Made by web/inline_page.cc from web/.\n#include \"server/page.h\"\n\nnamespace kvasir {\nnamespace {\n"
      "constexpr unsigned char kHtml[] = {";
  // Numbers, since compilers limit the length of a literal.
  for (size_t i = 0; i < page.html().size(); ++i) {
    source += fmt::format("{}{},", i % 32 == 0 ? "\n" : "", static_cast<unsigned char>(page.html()[i]));
  }
  return source + fmt::format(
                      "}};\nconstexpr std::string_view kPolicy = \"{}\";\n}}  // namespace\n\n"
                      "std::string_view PageHtml() {{ return {{reinterpret_cast<const char*>(kHtml), "
                      "sizeof(kHtml)}}; }}\n"
                      "std::string_view PageContentSecurityPolicy() {{ return kPolicy; }}\n"
                      "}}  // namespace kvasir\n",
                      page.Policy());
}

int Main(int argc, char** argv) {
  if (argc < 3) throw std::runtime_error("usage: inline_page OUT.cc WEB_DIR NAME=LIBRARY_DIR…");
  std::map<std::string, fs::path> libraries;
  for (int i = 3; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const size_t equals = argument.find('=');
    if (equals == std::string_view::npos) throw std::runtime_error(fmt::format("{} is no NAME=DIR", argument));
    libraries[std::string(argument.substr(0, equals))] = argument.substr(equals + 1);
  }
  PageMaker page(argv[2], libraries);
  page.Make();
  const fs::path out = argv[1];
  Write(out, Source(page));
  std::string depends = out.string() + ":";
  for (const fs::path& path : page.read()) depends += " " + path.string();
  Write(out.string() + ".d", depends + "\n");
  // The same as files, for the page's tests and for looking at it.
  Write(fs::path(out).replace_extension(".html"), page.html());
  Write(fs::path(out).replace_extension(".csp"), page.Policy());
  return 0;
}

}  // namespace
}  // namespace kvasir

int main(int argc, char** argv) {
  try {
    return kvasir::Main(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "inline_page: " << error.what() << '\n';
    return 1;
  }
}
