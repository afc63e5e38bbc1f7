from setuptools import Extension, setup

setup(ext_modules=[Extension("tally._sum", ["src/tally/_sum.c"])])
