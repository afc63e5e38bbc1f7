#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyObject *add(PyObject *self, PyObject *arg) {
    PyObject *items = PySequence_Fast(arg, "a sequence");
    if (!items) return NULL;
    long total = 0;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items); i++)
        total += PyLong_AsLong(PySequence_Fast_GET_ITEM(items, i));
    Py_DECREF(items);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(total);
}

static PyMethodDef methods[] = {{"add", add, METH_O, "Adds."}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_sum", 0, -1, methods};

PyMODINIT_FUNC PyInit__sum(void) { return PyModule_Create(&module); }
